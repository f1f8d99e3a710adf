"""Requests and answers of the operator API: the shapes of interface.md, validated and documented.

Guarantees: unknown fields are refused; every text has a bound; secrets arrive as `SecretStr`, and no
answer has a field that could hold one. Names, hosts and digests are only bounded here: the use
cases parse them into values. An absent optional field means the same as null.
"""

"""Signing the update metadata: ceremony (offline keys), publisher (online keys), schedule, status.

Only `tuf` and `securesystemslib` decide what valid metadata is; these modules lay out roles,
files and times (trust.md, "Signed update metadata").
"""

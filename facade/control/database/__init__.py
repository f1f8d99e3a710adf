"""The control side's database: engine, tables, migrations.

Only stores of this wing use it; nothing on the request path of a pull does.
"""

"""The operator wing: connections, credentials, catalog, signing, devices, and their API.

Holds the sealing key and the online signing keys. Never imports the serving wing.
"""

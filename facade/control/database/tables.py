"""Every table of the control side. Times are Unix seconds (float), so that no time zone can be lost.

Guarantees: the migrations produce exactly these tables (a test compares them). Holds no secret except
`connections.sealed`, which `control.connections.sealing` made, and hashes of API keys.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

connections = Table(
    "connections",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("host", String(260), nullable=False, unique=True),
    Column("provider", String(20), nullable=False),
    Column("username", String(255), nullable=False),
    Column("sealed", Text),  # an envelope of control.connections.sealing; NULL = no secret
    Column("settings", JSON, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("last_ok", Float),
    Column("last_error", Text),
    Column("last_error_at", Float),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of 256 random bits
    Column("permissions", JSON, nullable=False),
    Column("fleets", JSON),  # NULL = all
    Column("created_by", String(255), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_used", Float),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("outcome", Text, nullable=False),  # "ok", or "failed: " and a sentence
    Column("detail", JSON, nullable=False),
    Index(None, "at"),
    sqlite_autoincrement=True,  # ids are never used again, so a gap shows
)

closure_manifests = Table(
    "closure_manifests",
    metadata,
    Column("registry", String(260), primary_key=True),
    Column("repository", String(255), primary_key=True),
    Column("digest", String(136), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("kept_at", Float, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("fleet", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("registry", String(260), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("reference", String(140), nullable=False),
    Column("digest", String(136), nullable=False),
    Column("manifests", Integer, nullable=False),
    Column("blobs", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("imported_by", String(255), nullable=False),
    Column("imported_at", Float, nullable=False),
    Column("withdrawn_by", String(255)),
    Column("withdrawn_at", Float),
    Index(None, "fleet", "name", "reference"),
)

device_revocations = Table(
    "device_revocations",
    metadata,
    Column("fleet", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("revoked_at", Float, nullable=False),
    Column("revoked_by", String(255), nullable=False),
    Column("restored_at", Float),  # new certificates are admitted again; older ones stay refused
    Column("restored_by", String(255)),
)

certificate_revocations = Table(
    "certificate_revocations",
    metadata,
    Column("issuer", String(1024), primary_key=True),  # RFC 4514
    Column("serial", String(64), primary_key=True),  # lower-case hex
    Column("revoked_at", Float, nullable=False),
    Column("revoked_by", String(255), nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("fingerprint", String(64), primary_key=True),  # SHA-256 of the certificate, hex
    Column("fleet", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("issuer", String(1024), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("not_before", Float, nullable=False),
    Column("not_after", Float, nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("issued_by", String(255), nullable=False),
    Index(None, "fleet", "name"),
)

pulls = Table(
    "pulls",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("device", String(127), nullable=False),  # fleet/name
    Column("host", String(260), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("digest", String(136), nullable=False),
    Column("role", String(16), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("reason", String(32)),
    Column("bytes_sent", BigInteger, nullable=False),
    Column("cache", String(16), nullable=False),
    Index(None, "digest", "at"),
    sqlite_autoincrement=True,
)

integrity_failures = Table(
    "integrity_failures",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("host", String(260), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("digest", String(136), nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
)

"""What the console remembers: one SQLite file, read and written through SQLAlchemy Core."""

import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from sqlalchemy import (
    JSON,
    Column,
    Dialect,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    create_engine,
    event,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

METADATA = MetaData()


class Verbatim(TypeDecorator[str]):
    """A text exactly as it was sent: half a surrogate pair too, which SQLite's own refuses."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002  # reason: SQLAlchemy's signature
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # reason: SQLAlchemy's signature
        return None if value is None else value.decode("utf-8", "surrogatepass")


# Times are ISO 8601 in UTC, as the API shows them: texts of one form sort like the times.
accounts = Table(
    "accounts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("login", String, nullable=False, unique=True),
    Column("password_hash", String, nullable=False),
    Column("is_team", Integer, nullable=False, default=0),
)
ssh_keys = Table(
    "ssh_keys",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("text", Verbatim, nullable=False),  # exactly as it was sent, without NUL
    Column("created_at", String, nullable=False),
    Column("deleted_at", String),  # never forgotten: a deleted entry only gets this
    sqlite_autoincrement=True,
)
api_keys = Table(
    "api_keys",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", Verbatim, nullable=False),
    Column("value_hash", String, nullable=False, unique=True),
    Column("last_four", String, nullable=False),
    Column("permissions", JSON, nullable=False),
    Column("key_params", JSON, nullable=False),
    Column("created_at", String, nullable=False),
    Column("last_used_at", String),
    Column("deleted_at", String),
    sqlite_autoincrement=True,
)
sessions = Table(
    "sessions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("token_hash", String, nullable=False, unique=True),
    Column("device", String, nullable=False),
    Column("address", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("last_used_at", String, nullable=False),
    Column("expires_at", String, nullable=False),
    sqlite_autoincrement=True,
)
instances = Table(
    "instances",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("label", String, nullable=False),
    sqlite_autoincrement=True,
)
attached_keys = Table(
    "attached_keys",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("instance_id", ForeignKey("instances.id"), nullable=False, index=True),
    Column("key_id", Integer, nullable=False),  # the account's number for this key, or a new one
    Column("text", Verbatim, nullable=False),
    Column("created_at", String, nullable=False),
    sqlite_autoincrement=True,
)


def open_database(path: Path) -> Engine:
    """Open or make the console's file; every connection enforces foreign keys and waits 5 s.

    It is closed to others, as are the two files that SQLite puts beside it with the same mode.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with suppress(FileNotFoundError):
            each.chmod(0o600)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 5})
    event.listen(engine, "connect", _prepare)
    METADATA.create_all(engine)
    return engine


def now() -> str:
    """The time as the API writes it: UTC, in seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()

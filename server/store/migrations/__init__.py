"""Brings a database to the tables that this version knows: Alembic's revisions in `versions/`, each up and down.

open_writer ──► migrate ──► env.py ──► versions/r0001…, r0002…      in the writer's own transaction: all or nothing
                  └ adopts a database of the versions before Alembic, which stamped `schema_version` into `meta`

A new revision: change `schema.py`, add a file to `versions/`; tests compare what the revisions make with `schema.py`.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from incomes_server.store.schema import SCHEMA_VERSION, meta
from sqlalchemy import Connection, inspect, select

from incomes_plugin.errors import NotReady

BASELINE = "0001"
_LOCK = 0x1C035  # of PostgreSQL: two processes that open the database migrate it one after the other


def migrate(conn: Connection) -> None:
    """Make the tables, or change them to the newest revision.

    Args:
        conn: in a transaction that may write.

    Raises:
        NotReady: another version of the product wrote the database, and this one does not know how.
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    config = config_for(conn)
    head = ScriptDirectory.from_config(config).get_current_head()
    found = MigrationContext.configure(conn).get_current_revision()
    if found is None and inspect(conn).has_table(meta.name):
        command.stamp(config, BASELINE)
    if found != head:
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise _unknown(f"revision {found}", f"up to {head}") from error
    schema = conn.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
    if schema != str(SCHEMA_VERSION):
        raise _unknown(f"schema {schema}", str(SCHEMA_VERSION))


def require_newest(conn: Connection) -> None:
    """Raises NotReady unless the tables are those that this version knows. Changes nothing."""
    head = ScriptDirectory.from_config(config_for(conn)).get_current_head()
    found = MigrationContext.configure(conn).get_current_revision()
    if found != head:
        raise _unknown(f"revision {found}", f"{head}")


def config_for(conn: Connection) -> Config:
    """Alembic's configuration for an open connection: its commands run in the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", "incomes_server.store:migrations")
    config.attributes["connection"] = conn
    return config


def _unknown(found: str, known: str) -> NotReady:
    return NotReady(
        f"the edit database has {found}, this version of incomes knows {known}; "
        "run the version that wrote it, or give another database"
    )

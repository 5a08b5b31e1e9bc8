"""Run by Alembic for each of its commands: works on the connection that `config_for` put into the configuration."""

from __future__ import annotations

from alembic import context
from incomes_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

"""`incomes compress [MODEL] --join ADDRESS [options] [-- vLLM flags]`."""

from __future__ import annotations

import typer
from incomes_server.cli.serve import (
    AdapterOption,
    AdminHostOption,
    AdminPortOption,
    ConfigOption,
    JoinOption,
    ModelArgument,
    PoolOption,
    run_to_the_end,
)


def compress(
    context: typer.Context,
    model: ModelArgument = None,
    adapter: AdapterOption = None,
    config: ConfigOption = None,
    admin_host: AdminHostOption = None,
    admin_port: AdminPortOption = None,
    pool_bytes: PoolOption = None,
    join: JoinOption = None,
) -> None:
    """Compress edits for the engines of a cluster: no chat port, only probes and metrics on the admin port."""
    from incomes_server.settings import load_settings

    settings = load_settings(
        config,
        model=model,
        adapter=adapter,
        admin_host=admin_host,
        admin_port=admin_port,
        pool_bytes=pool_bytes,
        ray_address=join,
        join=True,
    ).settings
    run_to_the_end(settings, context.obj or [], compress=True)

"""`incomes serve [MODEL] [options] [-- vLLM flags]`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from incomes_server.cli.output import end_now, end_quietly, exit_code_of, out

from incomes_plugin.errors import IncomesError

if TYPE_CHECKING:
    from incomes_server.settings import Settings

logger = logging.getLogger("incomes.serve")

EPILOG = "Everything after -- goes to vLLM, e.g. `incomes serve -- --max-model-len 2048`."

MODEL_HELP = "base model (a folder, or a hub id), or a folder made by `incomes adapt`; default: SmolLM2-135M-Instruct"
ModelArgument = Annotated[str | None, typer.Argument(help=MODEL_HELP)]
AdapterOption = Annotated[str | None, typer.Option("--adapter", help="folder of the base's edit adapter")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="INCOMES_CONFIG", help="YAML file with settings", dir_okay=False)
]
HostOption = Annotated[str | None, typer.Option(help="address of the chat port")]
PortOption = Annotated[int | None, typer.Option(help="chat port")]
AdminHostOption = Annotated[str | None, typer.Option(help="address of the admin port")]
AdminPortOption = Annotated[int | None, typer.Option(help="admin port")]
StoreOption = Annotated[str | None, typer.Option("--edit-store", help="SQLAlchemy URL of the edit store")]
KeysOption = Annotated[
    list[str] | None, typer.Option("--api-key", help="`project:key` or `key`; may be given several times")
]
PoolOption = Annotated[str | None, typer.Option("--pool-bytes", help="host memory for gists, e.g. 512MiB or 4GiB")]
JoinOption = Annotated[
    str | None, typer.Option("--join", help="`host:port` of a Ray cluster: share the edit store that runs there")
]
NameOption = Annotated[str | None, typer.Option("--served-model-name", help="model name in the OpenAI API")]


def serve(
    context: typer.Context,
    model: ModelArgument = None,
    adapter: AdapterOption = None,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    admin_host: AdminHostOption = None,
    admin_port: AdminPortOption = None,
    edit_store: StoreOption = None,
    api_key: KeysOption = None,
    served_model_name: NameOption = None,
    pool_bytes: PoolOption = None,
    join: JoinOption = None,
) -> None:
    """Serve a model with live edits: chat port and admin port."""
    from incomes_server.settings import load_settings

    vllm_args: list[str] = context.obj or []
    settings = load_settings(
        config,
        model=model,
        adapter=adapter,
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        edit_store=edit_store,
        api_keys=tuple(api_key) if api_key else None,
        served_model_name=served_model_name,
        pool_bytes=pool_bytes,
        ray_address=join,
        join=None if join is None else True,
    ).settings
    run_to_the_end(settings, vllm_args)


def run_to_the_end(settings: Settings, vllm_args: list[str], *, compress: bool = False) -> None:
    """Run a server, or one that only compresses, until a signal; an error becomes a message and a status."""
    prepare_process(settings, vllm_args)
    from incomes_server.boot.app import serve as serve_forever
    from incomes_server.boot.compress import CompressionServer
    from incomes_server.boot.logs import progress

    kind = CompressionServer if compress else None
    json_lines = settings.log_format == "json"
    say = progress if json_lines else announce
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            runner.run(serve_forever(settings, vllm_args, say, log_and_end if json_lines else end_now, kind))
    except KeyboardInterrupt:
        say("stopped")
    except IncomesError as error:
        if not json_lines:
            raise
        logger.error("%s", error.message, extra={"code": error.code})
        raise typer.Exit(int(exit_code_of(error))) from None


def log_and_end(error: IncomesError | None) -> None:
    """`end_now` for logs of JSON lines."""
    if error is not None:
        logger.error("%s", error.message, extra={"code": error.code})
    end_quietly(error)


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop if vLLM has installed it, as vLLM's own server does."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def announce(line: str) -> None:
    """One line of progress, at once even in a pipe."""
    out.print(line, markup=False)
    out.file.flush()


def prepare_process(settings: Settings, vllm_args: list[str]) -> None:
    """Set what Ray and vLLM read when they are imported (sockets on loopback, no usage reports, one log format, where
    traces go), and this process's own logging and tracing."""
    from incomes_server.boot.engine_args import is_cpu_package, prepare_vllm
    from incomes_server.boot.logs import set_up_logging
    from incomes_server.boot.ray_local import prepare_ray_environment

    from incomes_plugin.telemetry import export_traces, name_collector

    prepare_ray_environment(settings.ray_address, settings.ray_token)
    name_collector(os.environ)
    prepare_vllm(settings, vllm_args, os.environ, cpu=is_cpu_package())
    set_up_logging(settings)
    export_traces("server")

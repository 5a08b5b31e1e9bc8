"""Start vLLM's OpenAI server in this process with the selection layer: its arguments in, its FastAPI app out.

`vllm serve` is not used: the CPU package cannot run it, and the server needs the app object to add its own layers.
"""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fastapi import FastAPI
from pydantic import ValidationError

from incomes_plugin.errors import EngineLost, InvalidValue, UnsupportedEngine
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.vllm.config import WORKER_CLS, PluginConfig
from incomes_plugin.vllm.endpoints import ENGINE_STATE
from incomes_plugin.vllm.engine import EditEngine
from incomes_plugin.vllm.register import register
from incomes_plugin.vllm.touches import assert_touches

PLUGIN_NAME = "incomes"


@dataclass(frozen=True)
class Launched:
    """A running engine behind vLLM's app.

    Attributes:
        app: vLLM's FastAPI app, state initialised; middleware may still be added.
        engine: the attached edit engine.
    """

    app: FastAPI
    engine: EditEngine


@asynccontextmanager
async def launch(arguments: Sequence[str], config: PluginConfig) -> AsyncIterator[Launched]:
    """Run the engine for the length of the block.

    Args:
        arguments: vLLM's server arguments, e.g. `["--model", "path/to/base", "--dtype", "bfloat16"]`.
        config: our settings of the engine, which reach its processes in `--additional-config`.

    Raises:
        UnsupportedEngine: vLLM, a model or a setting that edits have not been proven with.
        InvalidValue: vLLM refuses the arguments.
        EngineLost: the engine does not start.
        GistFormatError: `config.adapter` is no edit adapter.
        FingerprintMismatch: the adapter was made for another base.
    """
    prepare_environment()
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.app import build_app

    from incomes_plugin.vllm.inject import refuse_uneven_ranks

    args = parse_arguments(arguments, config)
    await asyncio.to_thread(refuse_unsupported, args)
    adapter = await asyncio.to_thread(EditAdapter.for_base, config.adapter, Path(args.model))  # fails before a start
    refuse_uneven_ranks(adapter, args.tensor_parallel_size)
    assert_touches()
    register()  # before the engine exists: its processes load us as a general plugin
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(build_async_engine_client(args))
        except Exception as error:
            raise EngineLost(f"the engine does not start: {_one_line(error)}; its log is above") from error
        engine = await EditEngine.attach(client, Path(args.model), config.adapter)  # type: ignore[arg-type]
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        setattr(app.state, ENGINE_STATE, engine)
        yield Launched(app, engine)


def prepare_environment() -> None:
    """Name our plugin in VLLM_PLUGINS (endpoint plugins load only then), before vLLM reads its environment.

    Raises:
        UnsupportedEngine: VLLM_SERVER_DEV_MODE is on; it opens `/collective_rpc` to anyone.
    """
    if os.environ.get("VLLM_SERVER_DEV_MODE", "0") not in ("", "0"):
        raise UnsupportedEngine("VLLM_SERVER_DEV_MODE opens the pool to anyone; unset it")
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise UnsupportedEngine(
            "the Rust front-end of vLLM skips the pinning of requests; unset VLLM_USE_RUST_FRONTEND"
        )
    named = [name for name in os.environ.get("VLLM_PLUGINS", "").split(",") if name]
    if PLUGIN_NAME not in named:
        os.environ["VLLM_PLUGINS"] = ",".join([*named, PLUGIN_NAME])


def refuse_unsupported(args: Namespace) -> None:
    """Make vLLM's configuration of the arguments and look at it before an engine loads.

    Raises:
        InvalidValue: vLLM refuses the arguments.
        UnsupportedEngine: edits are not supported with them.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    from incomes_plugin.vllm.inject import unsupported

    try:
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(UsageContext.OPENAI_API_SERVER)
    except Exception as error:  # of many classes, depending on which part of the configuration refuses
        raise InvalidValue(f"vLLM refuses its flags: {_one_line(error)}") from error
    reasons = list(unsupported(config))
    if reasons:
        raise UnsupportedEngine(f"edits are not supported with {'; nor with '.join(reasons)}")


def _refuse_flags(message: str) -> NoReturn:
    raise InvalidValue(f"vLLM refuses its flags: {message}")


def _one_line(error: Exception) -> str:
    """What an error says."""
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return " ".join(said.removeprefix("Value error, ").split())[:500] or type(error).__name__


def parse_arguments(arguments: Sequence[str], config: PluginConfig) -> Namespace:
    """vLLM's own parser and checks, plus our worker class and settings.

    Raises:
        InvalidValue: vLLM has no such flag, or not with this value.
        UnsupportedEngine: another worker class, settings of the plugin, or more than one API server process.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = _refuse_flags  # type: ignore[method-assign]  # its own prints 300 lines of usage
    args = parser.parse_args(list(arguments))
    if args.model_tag:
        args.model = args.model_tag
    if args.worker_cls not in ("auto", WORKER_CLS):
        raise UnsupportedEngine(f"--worker-cls is {WORKER_CLS} here, not {args.worker_cls}")
    if (args.api_server_count or 1) > 1:
        raise UnsupportedEngine("snapshots are pinned in one API server process; drop --api-server-count")
    args.worker_cls = WORKER_CLS
    args.additional_config = config.added_to(args.additional_config)
    validate_parsed_serve_args(args)
    return args

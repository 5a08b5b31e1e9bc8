"""The `vllm.general_plugins` entry point: installs the class-level hooks in every vLLM process, once."""

from __future__ import annotations

import functools
from typing import Any

from incomes_plugin.errors import IncomesError, InvalidValue
from incomes_plugin.vllm.answers import ANSWERS_ATTRIBUTE
from incomes_plugin.vllm.blocks import with_read_salt
from incomes_plugin.vllm.config import has_selection_layer
from incomes_plugin.vllm.guard import check_request, observe_rpc
from incomes_plugin.vllm.pin import PINS_ATTRIBUTE, pin_request

_MARK = "incomes_hooked"
_REFUSALS: dict[type[IncomesError], type[IncomesError]] = {}


def register() -> None:
    """Check the installed vLLM and hook into it; calling again does nothing.

    The hooks act only on engines whose worker class is ours, and on requests that such an engine tagged; other engines
    of the process stay stock.

    Raises:
        UnsupportedEngine: vLLM differs from what the plugin was written for.
    """
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor

    if hasattr(InputProcessor, _MARK):
        return
    _hook_input_processor(InputProcessor)
    _hook_async_llm(AsyncLLM)
    _hook_output_processor(OutputProcessor)
    _hook_engine_core(EngineCore)
    _hook_block_hash(kv_cache_utils)
    setattr(InputProcessor, _MARK, True)


def _hook_input_processor(cls: Any) -> None:
    process_inputs = cls.process_inputs

    @functools.wraps(process_inputs)
    def process_and_pin(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = process_inputs(self, *args, **kwargs)
        if has_selection_layer(self.vllm_config):
            try:
                pin_request(request, getattr(self, PINS_ATTRIBUTE, None))
            except IncomesError as error:
                raise _refusal(error) from error
        return request

    cls.process_inputs = process_and_pin


def _hook_async_llm(cls: Any) -> None:
    """A request that cannot be handed to the engine core must leave vLLM's front-end again, so that its pin is
    released."""
    add_request = cls._add_request

    @functools.wraps(add_request)
    async def add_or_abort(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        try:
            await add_request(self, request, *args, **kwargs)
        except BaseException as error:
            await self.abort(request.request_id, internal=True)
            if isinstance(error, (UnicodeEncodeError, OverflowError, TypeError)):
                reason = f"the engine cannot take the request's parameters: {type(error).__name__}: {error}"
                raise _refusal(InvalidValue(reason)) from error
            raise

    cls._add_request = add_or_abort


def _hook_output_processor(cls: Any) -> None:
    """Traced requests are followed: when one has ended, its state is gone, and with it the length of its answer."""
    add_request = cls.add_request

    @functools.wraps(add_request)
    def add_and_follow(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        add_request(self, request, *args, **kwargs)
        answers = getattr(self, ANSWERS_ATTRIBUTE, None)
        if answers is not None:
            answers.follow(request, self.request_states[request.request_id])

    cls.add_request = add_and_follow


def _refusal(error: IncomesError) -> IncomesError:
    """The same error as a class that `AsyncLLM.generate` passes on. Any other class would end in a 500."""
    from vllm.exceptions import VLLMClientError

    cls = type(error)
    if cls not in _REFUSALS:
        _REFUSALS[cls] = type(cls.__name__, (cls, VLLMClientError), {"__module__": cls.__module__})
    return _REFUSALS[cls](error.message, param=error.param)


def _hook_engine_core(cls: Any) -> None:
    preprocess, collective_rpc = cls.preprocess_add_request, cls.collective_rpc

    @functools.wraps(preprocess)
    def check_and_preprocess(self: Any, request: Any) -> Any:
        if has_selection_layer(self.vllm_config):
            check_request(self, request)
        return preprocess(self, request)

    @functools.wraps(collective_rpc)
    def rpc_and_observe(self: Any, method: Any, timeout: Any = None, args: Any = (), kwargs: Any = None) -> Any:
        answers = collective_rpc(self, method, timeout, args, kwargs)
        if isinstance(method, str) and method.startswith("incomes_"):
            observe_rpc(self, method, args, answers)
        return answers

    cls.preprocess_add_request = check_and_preprocess
    cls.collective_rpc = rpc_and_observe


def _hook_block_hash(module: Any) -> None:
    """`get_request_block_hasher` looks the function up in its module whenever it hashes a block."""
    extra_keys = module.generate_block_hash_extra_keys

    @functools.wraps(extra_keys)
    def extra_keys_and_salt(request: Any, start_token_idx: int, end_token_idx: int, start_mm_idx: int) -> Any:
        found = extra_keys(request, start_token_idx, end_token_idx, start_mm_idx)
        return with_read_salt(found, request, end_token_idx)

    module.generate_block_hash_extra_keys = extra_keys_and_salt

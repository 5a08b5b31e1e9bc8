"""Every touch of vLLM internals that the plugin relies on, checked against the installed vLLM at start-up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from incomes_plugin.errors import UnsupportedEngine


@dataclass(frozen=True)
class Touch:
    """One touch.

    Attributes:
        target: `module:qualified.name`.
        parameters: parameter names that must exist, in this order.
        why, how: what we need it for and what we do with it.
        versions: vLLM versions it was seen with.
        remove_when: what upstream would have to offer.
    """

    target: str
    parameters: tuple[str, ...]
    why: str
    how: str
    versions: str
    remove_when: str


TOUCHES = (
    Touch(
        "vllm.v1.engine.input_processor:InputProcessor.process_inputs",
        ("self", "request_id", "prompt", "params"),
        "pin every generation request to a snapshot, whatever route it came by",
        "post-hook on the class (register.py) that edits the returned EngineCoreRequest (pin.py)",
        "0.20-0.33",
        "vLLM has an input-processor plugin group",
    ),
    Touch(
        "vllm.v1.engine.async_llm:AsyncLLM._add_request",
        ("self", "request", "prompt", "parent_req", "index", "queue"),
        "a request whose hand-over to the engine core fails stays in the front-end for ever, and with it its snapshot",
        "wrapped on the class (register.py): aborts the request, and says 400 where its parameters cannot be encoded",
        "0.32",
        "vLLM aborts there itself, as it does for requests with n > 1",
    ),
    Touch(
        "vllm.v1.engine.core:EngineCore.preprocess_add_request",
        ("self", "request"),
        "fail a request alone when the pool lacks its snapshot",
        "pre-hook on the class (register.py, guard.py)",
        "0.28-0.32",
        "vLLM lets a worker fail one request of a step",
    ),
    Touch(
        "vllm.v1.engine.core:EngineCore.collective_rpc",
        ("self", "method", "timeout", "args", "kwargs"),
        "know in the engine core which snapshots are resident",
        "post-hook on the class (register.py, guard.py)",
        "0.28-0.32",
        "as above",
    ),
    Touch(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner._update_states",
        ("self", "scheduler_output"),
        "know which requests came and went, in empty steps too (V1 runner)",
        "wrap on the runner instance (rows_v1.py)",
        "0.20-0.33",
        "the V1 runner is removed",
    ),
    Touch(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner._model_forward",
        ("self", "input_ids", "positions", "intermediate_tensors", "inputs_embeds"),
        "know which rows of a step belong to which request (V1 runner)",
        "wrap on the runner instance (rows_v1.py); its docstring offers it for overriding",
        "0.20-0.33",
        "the V1 runner is removed",
    ),
    Touch(
        "vllm.model_executor.models.interfaces_base:VllmModelForTextGeneration.compute_logits",
        ("self", "hidden_states"),
        "answers copy tokens of picked edits: the logits of their rows are changed before vLLM samples",
        "wrapped on the model instance (copies.py); with either runner its next call after a step has a row a request",
        "0.32",
        "vLLM has a hook between the logits and the sampler that is given hidden states",
    ),
    Touch(
        "vllm.v1.attention.backend:AttentionImpl.forward",
        ("self", "layer", "query", "key", "value", "kv_cache", "attn_metadata", "output"),
        "change the attention output of rows that read edits",
        "class swap of `Attention.impl` after load_model (inject.py)",
        "0.20-0.33",
        "vLLM has a hook between attention and the output projection",
    ),
    Touch(
        "vllm.v1.attention.backends.cpu_attn:CPUAttentionBackendImpl.do_kv_cache_update",
        ("self", "layer", "key", "value", "kv_cache", "slot_mapping"),
        "know where in a page of the KV cache a key lies: routing and capture read it",
        "called at start with numbered keys on a page of our own (kv_cache.py); other backends have the same method",
        "0.28-0.32",
        "vLLM offers to read keys at positions of a request",
    ),
    Touch(
        "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadata",
        ("num_actual_tokens", "max_query_len", "query_start_loc", "max_seq_len", "seq_lens", "block_table"),
        "find the pages of a request: its row of `block_table` is its place in the step's batch",
        "read by the first reading layer (inject.py, runtime.py); FlashAttentionMetadata has the same fields",
        "0.28-0.32",
        "as above",
    ),
    Touch(
        "vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys",
        ("request", "start_token_idx", "end_token_idx", "start_mm_idx"),
        "keep KV blocks that depend on edits from every other request, and all others shared",
        "replaced in its module (register.py) by one that adds a secret of the request (blocks.py). `block_pool` and "
        "`simple_kv_offload` import it by name and keep vLLM's own: the one describes blocks in KV cache events, the "
        "other in a KV connector; both are refused (inject.py)",
        "0.30-0.32",
        "requests can name a position from which their blocks are private",
    ),
    Touch(
        "vllm.v1.core.kv_cache_utils:get_request_block_hasher",
        ("hash_block_size", "caching_hash_fn"),
        "as above: all hashes of a request are made here",
        "not touched; it looks `generate_block_hash_extra_keys` up in its module for every block",
        "0.28-0.32",
        "as above",
    ),
    Touch(
        "vllm.v1.request:Request",
        ("request_id", "prompt_token_ids", "sampling_params"),
        "know in the block hash which request it is and where its prompt ends",
        "reads request_id, num_prompt_tokens and sampling_params.extra_args (blocks.py)",
        "0.28-0.32",
        "as above",
    ),
    Touch(
        "vllm.v1.worker.gpu_worker:Worker.determine_available_memory",
        ("self",),
        "keep what the pool holds on the device inside vLLM's memory budget",
        "override in the worker subclass (worker.py)",
        "0.28-0.32",
        "never: subclassing by `worker_cls` is documented",
    ),
    Touch(
        "vllm.v1.worker.gpu_worker:Worker.initialize_from_config",
        ("self", "kv_cache_config"),
        "make the pool and learn the KV cache's layout, once it exists",
        "override in the worker subclass (worker.py)",
        "0.28-0.32",
        "as above",
    ),
    Touch(
        "vllm.v1.engine.output_processor:OutputProcessor.add_request",
        ("self", "request", "prompt"),
        "know when a request has left, so that its snapshot may go",
        "read-only look at `external_req_ids` (registry.py)",
        "0.28-0.32",
        "vLLM has a request-finished hook in the front-end",
    ),
    Touch(
        "vllm.v1.engine.detokenizer:IncrementalDetokenizer.num_output_tokens",
        ("self",),
        "attribution stops where an answer stops; the engine computes rows beyond it",
        "post-hook on `OutputProcessor.add_request` (register.py) keeps the detokenizer of a traced request in "
        "`RequestState.detokenizer`, and asks it at the end (answers.py)",
        "0.32",
        "as above, with the number of tokens of the answer",
    ),
)

# Checked by `rows_v2.install`: importing the V2 runner where V1 runs would cost seconds and may lack Triton.
V2_TOUCHES = (
    Touch(
        "vllm.v1.worker.gpu.model_states.default:DefaultModelState.add_request",
        ("self", "req_index", "new_req_data"),
        "learn the tag of a new or resumed request (V2 runner)",
        "wrap on the model state instance (rows_v2.py)",
        "0.20-0.33",
        "`SamplingParams.extra_args` is part of the V2 request state",
    ),
    Touch(
        "vllm.v1.worker.gpu.model_states.default:DefaultModelState.remove_request",
        ("self", "req_id"),
        "let go of the snapshot of a request that left",
        "wrap on the model state instance (rows_v2.py)",
        "0.24-0.33",
        "as above",
    ),
    Touch(
        "vllm.v1.worker.gpu.model_states.default:DefaultModelState.prepare_inputs",
        ("self", "input_batch", "req_states"),
        "know which rows of a step belong to which request, before the forward pass",
        "wrap on the model state instance (rows_v2.py); reads req_ids, query_start_loc_np, positions of the batch",
        "0.20-0.33",
        "models may add hooks to a stock ModelState",
    ),
    Touch(
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.execute_model",
        ("self", "scheduler_output", "intermediate_tensors", "dummy_run"),
        "drop the plan after the forward pass; tell preempted requests from finished ones",
        "wrap on the runner instance (rows_v2.py)",
        "0.32",
        "ModelState has a hook after the forward pass",
    ),
    Touch(
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.sample",
        ("self", "hidden_states", "input_batch", "grammar_output"),
        "the logits of a step's requests are computed here, one row each without speculative decoding",
        "not touched; calls `compute_logits` (copies.py) unless sampling is sharded, which is refused (rows_v2.py)",
        "0.32",
        "as for `compute_logits`",
    ),
    Touch(
        "vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.dispatch",
        ("self", "num_reqs", "num_tokens", "uniform_token_count", "num_active_loras", "max_query_len", "num_ubatches"),
        "FULL CUDA graphs hold the stock model and would leave edits out",
        "wrap on the graph manager instance (rows_v2.py): no FULL graph while a tagged request is resident",
        "0.32",
        "selection runs inside FULL graphs",
    ),
    Touch(
        "vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager.run_fullgraph",
        ("self", "desc"),
        "second line of defence behind `dispatch`",
        "wrap on the graph manager instance (rows_v2.py): a planned step is refused",
        "0.32",
        "as above",
    ),
)


def assert_touches(touches: tuple[Touch, ...] = TOUCHES) -> None:
    """Raise UnsupportedEngine when the installed vLLM differs from what the touches expect."""
    for touch in touches:
        names = tuple(inspect.signature(_resolve(touch)).parameters)
        if names[: len(touch.parameters)] != touch.parameters:
            raise UnsupportedEngine(
                f"vLLM changed {touch.target}: parameters {names}, expected {touch.parameters} "
                f"(seen with {touch.versions}); install a supported vLLM: pip install 'incomes[cpu]'"
            )


def _resolve(touch: Touch) -> Callable[..., Any]:
    module, _, path = touch.target.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise UnsupportedEngine(
            f"vLLM has no {touch.target}; install a supported vLLM: pip install 'incomes[cpu]'"
        ) from error
    return found  # type: ignore[no-any-return]

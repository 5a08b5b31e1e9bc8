"""Keeps KV blocks that depend on edits out of the prefix cache: only the request itself may reuse them.

Prompt tokens before the last one read no edits, so their blocks are the same as in stock vLLM and stay shared. A block
with the last prompt token or a generated token depends on the edits. A secret of the request is added to its hash, so
that no other request can find it.
"""

from __future__ import annotations

from typing import Any

from incomes_plugin.vllm.rows import KEY_PREFIX

_SALT = KEY_PREFIX + "read_salt"

ExtraKeys = tuple[tuple[Any, ...] | None, int]
"""What vLLM's `generate_block_hash_extra_keys` returns: extra keys of a block, next multi-modal index."""


def with_read_salt(found: ExtraKeys, request: Any, end_token: int) -> ExtraKeys:
    """Extra keys of a block, with the request's secret if the block depends on edits.

    Args:
        found: vLLM's own.
        request: vLLM's `Request`.
        end_token: position behind the last token of the block.
    """
    params = request.sampling_params
    salt = (params.extra_args or {}).get(_SALT) if params is not None else None
    if salt is None or end_token < request.num_prompt_tokens:
        return found
    keys, next_index = found
    # The answers of one request (n > 1) have the same salt; their ids tell them apart.
    return (*(keys or ()), (_SALT, f"{salt}/{request.request_id}")), next_index

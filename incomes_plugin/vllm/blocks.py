"""Who may reuse the KV blocks of a request that reads edits: nobody but itself.

Prompt tokens before the last read nothing, so their blocks are stock's and stay shared. A block with the last prompt
token or a generated one depends on the edits: its hash gets a secret of the request that no other request can have.
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

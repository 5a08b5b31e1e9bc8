"""The secret in block hashes: exactly on the blocks that depend on edits, and another one for every request."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from incomes_plugin.vllm.blocks import with_read_salt
from incomes_plugin.vllm.rows import RequestTag


def request(prompt_tokens: int, salt: str | None = "secret", name: str = "r") -> SimpleNamespace:
    tag = RequestTag(snapshot="s", question=(0, 1), read_salt=salt)
    params = SimpleNamespace(extra_args=tag.to_extra_args())
    return SimpleNamespace(request_id=name, sampling_params=params, num_prompt_tokens=prompt_tokens)


@pytest.mark.parametrize(("prompt_tokens", "first_private"), [(1, 0), (31, 0), (32, 0), (33, 1), (64, 1), (65, 2)])
def test_blocks_with_the_last_prompt_token_or_later_are_private(prompt_tokens: int, first_private: int) -> None:
    private = [with_read_salt((None, 0), request(prompt_tokens), 32 * (i + 1)) != (None, 0) for i in range(4)]
    assert private == [i >= first_private for i in range(4)]


def test_other_keys_stay_and_requests_differ() -> None:
    found = (("cache_salt", "mine"),), 3
    keys, index = with_read_salt(found, request(5), 32)
    assert keys is not None
    assert (keys[0], index) == (("cache_salt", "mine"), 3)
    assert all(len(key) == 2 for key in keys)
    others = [with_read_salt(found, r, 32) for r in (request(5, "other"), request(5, name="1_r"))]
    assert len({keys, *(other for other, _ in others)}) == 3


def test_requests_that_read_nothing_stay_stock() -> None:
    plain = SimpleNamespace(request_id="r", sampling_params=SimpleNamespace(extra_args=None), num_prompt_tokens=5)
    pooling = SimpleNamespace(request_id="r", sampling_params=None, num_prompt_tokens=5)
    for stock in (plain, pooling, request(5, None)):
        assert with_read_salt((None, 0), stock, 32) == (None, 0)

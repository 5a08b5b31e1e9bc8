"""The registry of vLLM touches: it holds on the installed vLLM, and it notices when vLLM changes."""

from __future__ import annotations

import dataclasses

import pytest

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.vllm.touches import TOUCHES, assert_touches

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def test_the_installed_vllm_is_as_expected() -> None:
    assert_touches()


@pytest.mark.parametrize("touch", TOUCHES, ids=lambda t: t.target.rpartition(":")[2])
def test_a_changed_signature_is_noticed(touch) -> None:
    changed = dataclasses.replace(touch, parameters=(*touch.parameters[:-1], "renamed"))
    with pytest.raises(UnsupportedEngine, match="renamed"):
        assert_touches((changed,))
    with pytest.raises(UnsupportedEngine, match="has no"):
        assert_touches((dataclasses.replace(touch, target=touch.target + "_gone"),))


def test_every_touch_says_why_and_until_when() -> None:
    for touch in TOUCHES:
        assert all((touch.why, touch.how, touch.versions, touch.remove_when))

"""The start-up canary: it passes with any adapter, and finds one reading layer that does nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from incomes_plugin.vllm.canary import _judge, _uncopied
from tests.incomes_plugin.vllm.lab import Lab, RemoteEngine, edited

pytestmark = pytest.mark.vllm


def test_it_passes_in_both_dtypes(fp32: RemoteEngine, bf16: RemoteEngine) -> None:
    for engine in (fp32, bf16):
        assert engine.call("canary") == (True, "")


def test_it_passes_where_the_verifier_accepts_nothing(lab: Lab, silent_dir: Path) -> None:
    silent = lab.engine("silent-float32", silent_dir, {**edited(silent_dir / "adapter"), "dtype": "float32"})
    assert silent.call("canary") == (True, "")


def test_it_finds_logits_that_copy_nothing(fp32: RemoteEngine) -> None:
    fp32.call("break_copying", "inert")
    ok, reason = fp32.call("canary")
    fp32.call("break_copying", None)
    assert not ok
    assert "was not copied from the edit" in reason
    assert fp32.call("canary") == (True, "")


def test_it_finds_a_layer_that_does_nothing(fp32: RemoteEngine) -> None:
    fp32.call("break_a_layer", "inert")
    ok, reason = fp32.call("canary")
    fp32.call("break_a_layer", None)
    assert not ok
    assert "50.0% of a forced answer" in reason  # one of two layers
    assert fp32.call("canary") == (True, "")


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ((1.0, 0.2, 0.0, 0.0), "without edits moved"),
        ((1e-5, 0.0, 0.0, 0.0), "edits are inert"),
        ((0.03, 0.02, 0.0, 0.0), "edits are inert"),
        ((1.0, 0.0, 0.5, 0.0), "layer is inert"),
        ((float("nan"), 0.0, 0.0, 0.0), "edits are inert"),
        ((1.0, float("nan"), 0.0, 0.0), "without edits moved"),
        ((1.0, 0.0, float("nan"), 0.0), "layer is inert"),
        ((1.0, 0.0, 0.0, 0.3), "30.0% of a forced answer was not copied"),
        ((1.0, 0.0, 0.0, float("nan")), "was not copied"),
        ((1.0, 0.01, 1e-5, 1e-5), ""),
    ],
)
def test_what_it_measured_is_judged(measured: tuple[float, ...], reason: str) -> None:
    report = _judge(*measured)
    assert report.ok == (not reason)
    assert reason in report.reason


@pytest.mark.parametrize("height", [0.0, 30.0, -400.0])
def test_what_is_not_copied_is_a_part_of_the_answer_however_high_its_logits_lie(height: float) -> None:
    found = {token: height + math.log(part) for token, part in {7: 0.5, 8: 0.25, 9: 0.25}.items()}
    assert _uncopied(found, {7, 8}) == pytest.approx(0.25)
    assert _uncopied(found, {7, 8, 9}) == 0
    assert math.isnan(_uncopied({7: float("nan"), 8: 0.0}, {7}))

"""The launcher refuses what would let requests slip past the pinning; the worker class refuses unproven engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.vllm.config import WORKER_CLS, PluginConfig

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def test_the_plugin_is_named_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from incomes_plugin.vllm.launcher import prepare_environment

    for before, after in ((None, "incomes"), ("", "incomes"), ("lora", "lora,incomes"), ("incomes", "incomes")):
        monkeypatch.delenv("VLLM_PLUGINS", raising=False)
        if before is not None:
            monkeypatch.setenv("VLLM_PLUGINS", before)
        prepare_environment()
        import os

        assert os.environ["VLLM_PLUGINS"] == after


@pytest.mark.parametrize("variable", ["VLLM_SERVER_DEV_MODE", "VLLM_USE_RUST_FRONTEND"])
def test_settings_that_go_around_the_server_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    from incomes_plugin.vllm.launcher import prepare_environment

    monkeypatch.setenv("VLLM_PLUGINS", "incomes")
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UnsupportedEngine, match=variable):
        prepare_environment()


def test_arguments_get_our_worker(model_dir: Path) -> None:
    from incomes_plugin.vllm.launcher import parse_arguments

    assert parse_arguments(["--model", str(model_dir)]).worker_cls == WORKER_CLS
    assert parse_arguments([str(model_dir)]).model == str(model_dir)
    for wrong in (["--worker-cls", "x.Y"], ["--api-server-count", "2"]):
        with pytest.raises(UnsupportedEngine):
            parse_arguments(["--model", str(model_dir), *wrong])


@pytest.mark.parametrize(
    ("additional", "variable", "expected"),
    [({}, None, 65536), ({"incomes": {"pool_gists": 7}}, None, 7), ({"incomes": {"pool_gists": 7}}, "9", 9)],
)
def test_pool_size_from_configuration(monkeypatch: pytest.MonkeyPatch, additional, variable, expected) -> None:
    monkeypatch.delenv("INCOMES_POOL_GISTS", raising=False)
    if variable:
        monkeypatch.setenv("INCOMES_POOL_GISTS", variable)
    assert PluginConfig.of(type("C", (), {"additional_config": additional})()).pool_gists == expected


def test_the_fact_gate_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INCOMES_FACT_GATE_ENTRIES", raising=False)
    config = type("C", (), {"additional_config": {}})()
    assert PluginConfig.of(config).fact_gate_entries == 0
    monkeypatch.setenv("INCOMES_FACT_GATE_ENTRIES", "65536")
    assert PluginConfig.of(config).fact_gate_entries == 65536


@pytest.mark.parametrize(
    "given", [{"pool_gist": 7}, {"pool_gists": 0}, {"pool_gists": "many"}, {"fact_gate_entries": -1}]
)
def test_a_wrong_setting_is_refused(monkeypatch: pytest.MonkeyPatch, given: dict[str, object]) -> None:
    monkeypatch.delenv("INCOMES_POOL_GISTS", raising=False)
    with pytest.raises(UnsupportedEngine):
        PluginConfig.of(type("C", (), {"additional_config": {"incomes": given}})())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, None),
        ({"tensor_parallel_size": 2}, "tensor parallelism"),
        ({"enable_lora": True}, "LoRA"),
        ({"kv_cache_dtype": "fp8"}, "fp8"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative"),
    ],
)
def test_unproven_combinations_are_named(model_dir: Path, arguments: dict[str, object], reason: str | None) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from incomes_plugin.vllm.inject import unsupported

    config = EngineArgs(model=str(model_dir), max_model_len=256, enforce_eager=True, **arguments).create_engine_config()
    reasons = list(unsupported(config))
    assert reasons == [] if reason is None else any(reason in r for r in reasons)

"""The launcher refuses what would let requests slip past the pinning; the worker class refuses unproven engines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from incomes_plugin.errors import FingerprintMismatch, GistFormatError, IncomesError, InvalidValue, UnsupportedEngine
from incomes_plugin.gist.spelling import COLUMNS
from incomes_plugin.gist.types import SPELLED_PER_TOKEN
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.pool.picked import PickedEdit
from incomes_plugin.pool.table import ROW_TOKENS
from incomes_plugin.vllm.batch import PickedTokens, ReadBatch
from incomes_plugin.vllm.config import WORKER_CLS, PluginConfig
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
KV_EVENTS = {"enable_kv_cache_events": True, "publisher": "null"}


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


def test_arguments_get_our_worker_and_settings(model_dir: Path) -> None:
    from incomes_plugin.vllm.launcher import parse_arguments

    config = PluginConfig(model_dir / "adapter", 7, 9)
    for given in (["--model", str(model_dir)], [str(model_dir), "--additional-config", '{"theirs": 1}']):
        args = parse_arguments(given, config)
        assert (args.worker_cls, args.model) == (WORKER_CLS, str(model_dir))
        assert PluginConfig.of(args) == config
    assert args.additional_config["theirs"] == 1
    for wrong in (
        ["--worker-cls", "x.Y"],
        ["--api-server-count", "2"],
        ["--additional-config", '{"incomes": {"adapter": "x", "pool_bytes": 1}}'],
    ):
        with pytest.raises(UnsupportedEngine):
            parse_arguments(["--model", str(model_dir), *wrong], config)


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"incomes": {}},
        {"incomes": {"adapter": "a"}},
        {"incomes": {"adapter": "a", "pool_bytes": 5}},
        {"incomes": {"adapter": "a", "pool_bytes": 0, "index_from_edits": 5}},
        {"incomes": {"adapter": "a", "pool_bytes": 5, "index_from_edits": 0}},
        {"incomes": {"adapter": "a", "pool_bytes": "many", "index_from_edits": 5}},
        {"incomes": {"adapter": 5, "pool_bytes": 5, "index_from_edits": 5}},
        {"incomes": {"adapter": "a", "pool_bytes": 5, "index_from_edits": 5, "pool_gists": 5}},
    ],
)
def test_a_wrong_setting_is_refused(given: object) -> None:
    with pytest.raises(UnsupportedEngine, match="pool_bytes"):
        PluginConfig.of(SimpleNamespace(additional_config=given))


def test_an_adapter_of_another_base_is_refused_before_the_engine_starts(model_dir: Path, tmp_path: Path) -> None:
    import asyncio

    from incomes_plugin.vllm.launcher import launch

    async def start(adapter_dir: Path) -> None:
        async with launch(["--model", str(model_dir)], PluginConfig(adapter_dir, 1)):
            raise AssertionError("started")

    other = write_tiny_model(tmp_path / "other", seed=1) / "adapter"
    with pytest.raises(FingerprintMismatch, match="made for base"):
        asyncio.run(start(other))
    with pytest.raises(GistFormatError, match="no edit adapter"):
        asyncio.run(start(tmp_path))


def test_what_the_pool_keeps_on_the_device_is_accounted_for(adapter: EditAdapter) -> None:
    from incomes_plugin.vllm.worker import device_room

    small, large = PluginConfig(Path(), 1 << 20), PluginConfig(Path(), 1 << 30)
    for config in (small, large):
        assert device_room(config, adapter, torch.float32, 8) > config.device_bytes
    assert large.device_bytes == 256 << 20
    assert device_room(small, adapter, torch.float32, 8) < device_room(small, adapter, torch.float32, 64)


def test_the_picks_of_a_request_find_the_room_that_is_counted_for_them(adapter: EditAdapter) -> None:
    from incomes_plugin.vllm.worker import device_room

    shape, spelled = adapter.shape, round(SPELLED_PER_TOKEN * ROW_TOKENS)
    keys = torch.zeros(len(shape.layers), shape.num_kv_heads, ROW_TOKENS, shape.head_dim)
    table = torch.zeros(spelled, COLUMNS, dtype=torch.int64)
    pick = PickedEdit(("edit", 1), keys, keys, torch.zeros(spelled, adapter.copier.config["copy_dim"]), table)
    most = adapter.rules.most_picks
    batch = ReadBatch(pick)
    batch.set([PickedTokens.of([pick] * most, torch.zeros(most), 1, None)])
    held = (*batch.keys, *batch.values, batch.copy_keys, batch.table, batch.cover)
    config = PluginConfig(Path(), 1 << 20)
    one, none = (device_room(config, adapter, torch.float32, requests) for requests in (1, 0))
    assert one - none >= sum(part.nbytes for part in held)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, None),
        ({"tensor_parallel_size": 2}, None),
        ({"enable_lora": True}, "LoRA"),
        ({"enable_prompt_embeds": True}, "embeddings"),
        ({"kv_events_config": KV_EVENTS}, "KV cache events"),
        ({"kv_cache_dtype": "fp8"}, "fp8"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative"),
    ],
)
def test_unproven_combinations_are_named(model_dir: Path, arguments: dict[str, object], reason: str | None) -> None:
    from vllm.config import KVEventsConfig
    from vllm.engine.arg_utils import EngineArgs

    from incomes_plugin.vllm.inject import unsupported

    if arguments.get("kv_events_config") is KV_EVENTS:
        arguments = {"kv_events_config": KVEventsConfig(**KV_EVENTS)}
    config = EngineArgs(model=str(model_dir), max_model_len=256, enforce_eager=True, **arguments).create_engine_config()
    reasons = list(unsupported(config))
    assert reasons == [] if reason is None else any(reason in r for r in reasons)


@pytest.mark.parametrize(
    ("flags", "error", "reason"),
    [
        (["--data-parallel-size", "2"], UnsupportedEngine, "data parallelism"),
        (["--enable-lora"], UnsupportedEngine, "drop --enable-lora"),
        (
            ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 2}'],
            UnsupportedEngine,
            "--speculative",
        ),
        (["--max-model-len", "many"], InvalidValue, "--max-model-len"),
        (["--max-model-len", "100000"], InvalidValue, "max_model_len"),
        (["--no-such-flag"], InvalidValue, "--no-such-flag"),
        (["--kv-cache-dtype", "nonsense"], InvalidValue, "--kv-cache-dtype"),
    ],
)
def test_flags_are_refused_in_one_line_before_an_engine_loads(
    model_dir: Path, flags: list[str], error: type[IncomesError], reason: str
) -> None:
    import asyncio

    from incomes_plugin.vllm.launcher import launch

    async def start() -> None:
        given = ["--model", str(model_dir), "--distributed-executor-backend", "uni", *flags]
        async with launch(given, PluginConfig(model_dir / "adapter", 1 << 20)):
            raise AssertionError("started")

    with pytest.raises(error) as caught:
        asyncio.run(start())
    assert reason in caught.value.message
    assert "\n" not in caught.value.message

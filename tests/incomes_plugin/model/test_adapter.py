"""The adapter's files: everything comes back, and what does not fit is refused with a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from incomes_plugin.errors import FingerprintMismatch, GistFormatError
from incomes_plugin.model.adapter import CONFIG_FILE, TENSOR_FILE, EditAdapter
from incomes_plugin.selection.rules import RoutingRules
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("adapter") / "model")


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model / "adapter", tmp_path / "adapter"))


def test_everything_comes_back(folder: Path, tmp_path: Path) -> None:
    rules = RoutingRules(candidates=5, most_picks=3, threshold=0.25, growth=0.5, rivalry=0.125, conflict=-0.5)
    made = replace(EditAdapter.load(folder), rules=rules)
    made.save(tmp_path / "deep" / "copy")
    found = EditAdapter.load(tmp_path / "deep" / "copy")
    for name in ("base", "shape", "num_heads", "template", "max_edit_tokens", "rules"):
        assert getattr(found, name) == getattr(made, name)
    assert torch.equal(found.mean, made.mean)
    assert torch.equal(found.scale, made.scale)
    for name in ("router", "verifier", "judge", "codec", "reader", "copier"):
        old, new = (getattr(adapter, name) for adapter in (made, found))
        assert not new.training
        assert not any(tensor.requires_grad for tensor in new.parameters())
        assert old.state_dict().keys() == new.state_dict().keys()
        assert all(torch.equal(tensor, new.state_dict()[key]) for key, tensor in old.state_dict().items())
    features = torch.randn(6, made.shape.feature_dim)
    assert torch.equal(made.standardise(features), found.standardise(features))


def test_large_matrices_are_kept_in_8_bits(folder: Path, tmp_path: Path) -> None:
    made = EditAdapter.load(folder)
    with torch.no_grad():
        made.verifier.enter.weight.normal_()
        made.verifier.enter.weight[3] = 0.0
    made.save(tmp_path / "copy")
    kept = load_file(tmp_path / "copy" / TENSOR_FILE)
    scaled = {name.removesuffix(".row_scale") for name in kept if name.endswith(".row_scale")}
    assert "verifier.enter.weight" in scaled
    assert scaled == {name for name, tensor in kept.items() if tensor.numel() >= 4096}
    assert {tensor.dtype for name, tensor in kept.items() if name in scaled} == {torch.int8}
    assert {tensor.dtype for name, tensor in kept.items() if name not in scaled} == {torch.float32}
    found, given = EditAdapter.load(tmp_path / "copy").verifier.enter.weight, made.verifier.enter.weight
    assert found.dtype == torch.float32
    assert float((found - given).abs().amax(1).div(given.abs().amax(1).clamp_min(1e-9)).max()) < 0.5 / 127 + 1e-6
    assert not torch.equal(found, given)
    assert not found[3].any()
    EditAdapter.load(tmp_path / "copy").save(tmp_path / "again")
    again = EditAdapter.load(tmp_path / "again").verifier.enter.weight
    torch.testing.assert_close(again, found, rtol=1e-6, atol=0.0)


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(format=3), "adapter format 3, expected 10"),
        (lambda c: c.pop("format"), "adapter format None"),
        (lambda c: c.pop("shape"), "damaged adapter.*shape"),
        (lambda c: c["shape"].pop("layers"), "damaged adapter.*layers"),
        (lambda c: c["shape"].update(latent_dim=5), "damaged adapter.*directions"),
        (lambda c: c["shape"].update(feature_layers=[1, 3]), "feature layers.*above"),
        (lambda c: c["rules"].update(fact_gate=1), "damaged adapter.*fact_gate"),
        (lambda c: c["template"].pop("turn_prefix"), "damaged adapter.*turn_prefix"),
        (lambda c: c["router"].update(route_dim=7), "damaged adapter.*query.weight"),
        (lambda c: c["verifier"].update(layers=2), "damaged adapter.*blocks"),
        (lambda c: c.pop("copier"), "damaged adapter.*copier"),
        (lambda c: c["copier"].update(copy_dim=7), "damaged adapter.*query"),
        (lambda c: c.pop("num_heads"), "damaged adapter.*num_heads"),
        (lambda c: c["base"].pop("fingerprint"), "damaged adapter.*fingerprint"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, change: Change, named: str) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    change(config)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(GistFormatError, match=f"(?s){named}.*incomes adapt"):
        EditAdapter.load(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("mean"), "mean"),
        (lambda t: t.update(scale=torch.ones(3)), "scale has shape"),
        (lambda t: t.pop("reader.zero_bias"), "zero_bias"),
        (lambda t: t.pop("judge.out_bias"), "out_bias"),
        (lambda t: t.update({"judge.hidden": torch.ones(16, 9)}), "hidden"),
        (lambda t: t.update({"reader.zero_bias": torch.ones(1)}), "zero_bias"),
        (lambda t: t.update({"reader.recency": torch.ones(1)}), "recency"),
        (lambda t: t.update(route_recency=torch.ones(1)), "unknown tensors.*route_recency"),
        (lambda t: t.update({"judge.hidden": t["judge.hidden"].to(torch.int8)}), "judge.hidden.row_scale"),
        (lambda t: t.update({"mean.row_scale": torch.ones(1)}), "unknown tensors.*mean.row_scale"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder: Path, change: Change, named: str) -> None:
    tensors = load_file(folder / TENSOR_FILE)
    change(tensors)
    save_file(tensors, folder / TENSOR_FILE)
    with pytest.raises(GistFormatError, match=f"(?s)damaged adapter.*{named}.*incomes adapt"):
        EditAdapter.load(folder)


@pytest.mark.parametrize(("name", "content"), [(CONFIG_FILE, b"{"), (CONFIG_FILE, b"[]"), (TENSOR_FILE, b"x" * 50)])
def test_damaged_files_are_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(GistFormatError, match=r"damaged adapter.*incomes adapt"):
        EditAdapter.load(folder)


@pytest.mark.parametrize(("name", "named"), [(CONFIG_FILE, "it is no edit adapter"), (TENSOR_FILE, "damaged adapter")])
def test_missing_files_are_refused(folder: Path, name: str, named: str) -> None:
    (folder / name).unlink()
    with pytest.raises(GistFormatError, match=f"{named}.*incomes adapt"):
        EditAdapter.load(folder)


def test_an_adapter_serves_its_own_base_only(model: Path, folder: Path, tmp_path: Path) -> None:
    assert EditAdapter.for_base(folder, model).base.name == str(model)
    other = write_tiny_model(tmp_path / "other", seed=1)
    theirs, ours = (EditAdapter.load(f / "adapter").base.fingerprint for f in (other, model))
    with pytest.raises(FingerprintMismatch, match=f"{ours}.*{theirs}.*incomes adapt"):
        EditAdapter.for_base(folder, other)

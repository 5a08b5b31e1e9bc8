"""The adapter's files: not taken for weights of the checkpoint they lie beside, and refused where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from incomes_plugin.errors import GistFormatError
from incomes_plugin.gist.types import GistShape
from incomes_plugin.model.adapter import INDEX_FILE, EditAdapter
from incomes_plugin.selection.keeping import KeepRule
from incomes_plugin.selection.scale import LogScale
from tests.tiny_model import TinyModel, write_tiny_model


def adapter() -> EditAdapter:
    return EditAdapter(GistShape((1,), 2, 1, 4), (8, 9), 1, 16, LogScale(), torch.ones(1, 1, 4))


def test_index_names_the_checkpoint_only(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "model.safetensors")
    adapter().save(tmp_path)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert index["weight_map"] == {"a": "model.safetensors", "b": "model.safetensors"}


def test_existing_index_is_kept(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text("{}")
    save_file({"a": torch.ones(1)}, tmp_path / "model-00001-of-00001.safetensors")
    adapter().save(tmp_path)
    assert (tmp_path / INDEX_FILE).read_text() == "{}"


def test_vllm_loads_what_the_index_names(tmp_path: Path) -> None:
    from vllm.model_executor.model_loader.weight_utils import filter_duplicate_safetensors_files

    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    adapter().save(tmp_path)
    found = [str(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    assert len(found) == 2
    kept = filter_duplicate_safetensors_files(found, str(tmp_path), INDEX_FILE)
    assert kept == [str(tmp_path / "model.safetensors")]


def test_a_router_of_another_width_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", TinyModel(routed=True))
    adapter = EditAdapter.load(folder)
    assert adapter.router is not None
    replace(adapter, router=replace(adapter.router, zero=torch.zeros(3))).save(folder)
    with pytest.raises(GistFormatError, match="route_zero"):
        EditAdapter.load(folder)


def test_a_correction_is_added_to_the_direction_and_lives_in_the_adapter(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", TinyModel(routed=True))
    adapter = EditAdapter.load(folder)
    assert adapter.router is not None
    inner, width = adapter.router.query.shape
    hidden, offset, out = torch.randn(inner, 5), torch.randn(5), torch.randn(5, width)
    corrected = replace(adapter.router, hidden=hidden, hidden_bias=offset, correction=out)
    replace(adapter, router=corrected).save(folder)
    loaded = EditAdapter.load(folder).router
    assert loaded is not None
    query = torch.randn(3, 2, inner // 2)
    expected = adapter.router.directions(query) + torch.nn.functional.gelu(query.flatten(1) @ hidden + offset) @ out
    torch.testing.assert_close(loaded.directions(query), expected)
    replace(adapter, router=replace(corrected, correction=torch.randn(5, width + 1))).save(folder)
    with pytest.raises(GistFormatError, match="route_correction"):
        EditAdapter.load(folder)


def test_a_keep_rule_comes_back_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text("{}")
    rule = KeepRule(torch.tensor([1.0, -2.0, 0.5, 0.0]), torch.tensor(0.25), 3)
    replace(adapter(), keep=rule).save(tmp_path)
    loaded = EditAdapter.load(tmp_path).keep
    assert loaded is not None
    assert loaded.weight.tolist() == [1.0, -2.0, 0.5, 0.0]
    assert (float(loaded.bias), loaded.budget) == (0.25, 3)
    for wrong, named in ((replace(rule, weight=torch.zeros(5)), "keep_weight"), (replace(rule, budget=0), "budget")):
        replace(adapter(), keep=wrong).save(tmp_path)
        with pytest.raises(GistFormatError, match=named):
            EditAdapter.load(tmp_path)


def test_a_tensor_that_the_format_does_not_know_is_refused(tmp_path: Path) -> None:
    adapter().save(tmp_path)
    path = tmp_path / "edit_adapter.safetensors"
    save_file(load_file(path) | {"route_recency": torch.ones(1)}, path)
    with pytest.raises(GistFormatError, match="route_recency"):
        EditAdapter.load(tmp_path)

"""Rewriting a safetensors file without reading it whole."""

import tracemalloc

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from incomes_plugin.lab.transplant import stream
from incomes_plugin.lab.transplant.stream import Replacement, rewrite


@pytest.fixture
def source(tmp_path):
    tensors = {
        "a": torch.randn(5, 4).bfloat16(), "embedding": torch.randn(7, 3), "scalar": torch.tensor(2.0),
        "z": torch.arange(11, dtype=torch.int64), "empty": torch.empty(0, 4),
    }  # fmt: skip
    save_file(tensors, tmp_path / "old.safetensors", metadata={"format": "pt"})
    return tmp_path / "old.safetensors", tensors


def test_nothing_replaced_is_the_same_file(source, tmp_path):
    rewrite(source[0], tmp_path / "new.safetensors", {})
    assert (tmp_path / "new.safetensors").read_bytes() == source[0].read_bytes()


@pytest.mark.parametrize("rows", [1, 7, 20])
def test_replaced_rows(source, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(stream, "BLOCK_BYTES", 32)
    other = torch.randn(rows, 3)
    rewrite(source[0], tmp_path / "new.safetensors", {"embedding": Replacement(rows, lambda: other)})
    found = load_file(tmp_path / "new.safetensors")
    assert found.keys() == source[1].keys()
    for name, tensor in (source[1] | {"embedding": other}).items():
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert not list(tmp_path.glob("*.new"))


def test_a_wrong_number_of_rows_leaves_no_file(source, tmp_path):
    with pytest.raises(ValueError, match="planned"):
        rewrite(source[0], tmp_path / "new.safetensors", {"a": Replacement(3, lambda: torch.zeros(2, 4).bfloat16())})
    assert not (tmp_path / "new.safetensors").exists()


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_BYTES", 64 * 1024)
    save_file({"body": torch.zeros(2**22), "head": torch.zeros(8, 8)}, tmp_path / "old.safetensors")  # 16 MiB
    tracemalloc.start()
    rewrite(
        tmp_path / "old.safetensors", tmp_path / "new.safetensors", {"head": Replacement(9, lambda: torch.ones(9, 8))}
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert load_file(tmp_path / "new.safetensors")["head"].sum() == 72

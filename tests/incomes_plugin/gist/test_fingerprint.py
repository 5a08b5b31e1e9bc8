"""Fingerprints follow everything a gist depends on, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from incomes_plugin.errors import GistFormatError
from incomes_plugin.gist import base_fingerprint, model_fingerprint
from incomes_plugin.gist.fingerprint import base_fingerprint_of
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("fingerprint") / "model")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def fingerprint(folder: Path) -> str:
    return model_fingerprint(folder, folder / "adapter", torch.float32)


def test_the_same_files_in_another_place_are_the_same(model: Path, copy: Path) -> None:
    assert base_fingerprint(copy) == base_fingerprint(model)
    assert fingerprint(copy) == fingerprint(model)
    assert model_fingerprint(copy, model / "adapter", torch.bfloat16) != fingerprint(model)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer.model", "vocab.json", "merges.txt"]
)
def test_another_file_of_the_base_is_another_base(model: Path, copy: Path, name: str) -> None:
    file = copy / name
    file.write_bytes((file.read_bytes() if file.is_file() else b"") + b"\n")
    assert base_fingerprint(copy) != base_fingerprint(model)
    assert fingerprint(copy) != fingerprint(model)


@pytest.mark.parametrize("name", ["edit_adapter.json", "edit_adapter.safetensors"])
def test_another_adapter_is_another_model_on_the_same_base(model: Path, copy: Path, name: str) -> None:
    file = copy / "adapter" / name
    file.write_bytes(file.read_bytes() + b"\n")
    assert base_fingerprint(copy) == base_fingerprint(model)
    assert fingerprint(copy) != fingerprint(model)


def test_files_that_change_no_number_and_an_adapter_beside_the_weights_do_not_count(model: Path, copy: Path) -> None:
    (copy / "generation_config.json").write_text("{}")
    (copy / "README.md").write_text("hello")
    for path in (copy / "adapter").iterdir():
        shutil.copy(path, copy / path.name)
    assert base_fingerprint(copy) == base_fingerprint(model)


def test_hashes_of_files_give_the_same_fingerprint(model: Path) -> None:
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir() if path.is_file()}
    assert base_fingerprint_of(hashes) == base_fingerprint(model)


def test_a_folder_without_a_model_or_an_adapter_has_none(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        base_fingerprint(tmp_path)
    with pytest.raises(GistFormatError, match=r"edit_adapter\.json.*incomes adapt"):
        model_fingerprint(model, tmp_path, torch.float32)

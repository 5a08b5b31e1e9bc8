"""The model fingerprint follows everything a gist depends on: another tokenizer is another model."""

import shutil
from pathlib import Path

import pytest
import torch

from incomes_plugin.errors import FingerprintMismatch
from incomes_plugin.gist import Gist, dump_gists, load_gists, model_fingerprint
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("fingerprint") / "model")


def test_the_same_model_in_another_place_is_the_same(model, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    assert model_fingerprint(other, torch.float32) == model_fingerprint(model, torch.float32)
    assert model_fingerprint(other, torch.bfloat16) != model_fingerprint(model, torch.float32)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "config.json", "edit_adapter.json", "tokenizer.model", "vocab.json", "merges.txt"]
)
def test_another_tokenizer_or_adapter_is_another_model(model, tmp_path, name):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    file = other / name
    file.write_bytes((file.read_bytes() if file.is_file() else b"") + b"\n")
    changed = model_fingerprint(other, torch.float32)
    assert changed != model_fingerprint(model, torch.float32)
    blob = dump_gists([Gist("edit_1", 1, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))], "mf_old")
    with pytest.raises(FingerprintMismatch, match=f"mf_old.*{changed}.*compress the edit again"):
        load_gists(blob, changed)


def test_a_folder_without_a_model_has_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        model_fingerprint(tmp_path, torch.float32)

"""What a person names becomes a base and its adapter, or a refusal that names the remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from incomes_plugin.errors import AdapterMismatch, AdapterMissing, BaseModelUnavailable, GistFormatError, InvalidValue
from incomes_plugin.model import resolve as module
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.base import DEFAULT_BASE
from incomes_plugin.model.resolve import Served, resolve
from tests.tiny_model import write_tiny_model

PACKAGED = module.DEFAULT_ADAPTER_DIR


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("stranger"), seed=1)


@pytest.fixture(autouse=True)
def default(base, monkeypatch):
    """The tiny base in place of the default one, its adapter in place of the packaged one."""
    monkeypatch.setattr(module, "DEFAULT_ADAPTER_DIR", base / "adapter")
    found = module.resolve_model
    monkeypatch.setattr(module, "resolve_model", lambda name, say: base if name in (None, "default") else found(name))


def adapter_naming(name, base, folder):
    adapter = EditAdapter.load(base / "adapter")
    dataclasses.replace(adapter, base=dataclasses.replace(adapter.base, name=name)).save(folder)
    return folder


@pytest.mark.parametrize("model", [None, "default"])
def test_nothing_named_is_the_default(base, model):
    assert resolve(model, None) == Served(base, base / "adapter")


def test_the_packaged_adapter_is_named_after_the_default_base():
    assert Path(module.__file__).parent / "assets" / DEFAULT_BASE == PACKAGED


def test_a_copy_of_the_default_base_takes_the_packaged_adapter(base, tmp_path):
    copy = write_tiny_model(tmp_path / "copy")
    assert resolve(str(copy), None) == Served(copy, base / "adapter")


def test_a_base_and_its_adapter(stranger):
    assert resolve(str(stranger), str(stranger / "adapter")) == Served(stranger, stranger / "adapter")


def test_an_adapter_names_its_base(base, stranger, tmp_path):
    assert resolve(str(stranger / "adapter"), None) == Served(stranger, stranger / "adapter")
    assert resolve(None, str(stranger / "adapter")) == Served(stranger, stranger / "adapter")
    named = adapter_naming("default", base, tmp_path)
    assert resolve(str(named), None) == Served(base, named)


def test_a_base_without_an_adapter(stranger):
    with pytest.raises(AdapterMissing, match=f"incomes adapt {stranger} --out DIR, then incomes serve DIR"):
        resolve(str(stranger), None)


def test_no_packaged_adapter(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "DEFAULT_ADAPTER_DIR", tmp_path)
    with pytest.raises(AdapterMissing, match="incomes adapt default --out DIR"):
        resolve(None, None)


def test_an_adapter_of_another_base(base, stranger, tmp_path):
    with pytest.raises(AdapterMismatch, match=r"bf_\w+.*another.*bf_\w+.*incomes adapt .* --out DIR"):
        resolve(str(base), str(stranger / "adapter"))
    moved = adapter_naming(str(stranger), base, tmp_path)  # the base's folder holds other weights now
    with pytest.raises(AdapterMismatch):
        resolve(str(moved), None)


def test_a_damaged_default_base(monkeypatch, stranger):
    monkeypatch.setattr(module, "resolve_model", lambda *_: stranger)
    with pytest.raises(AdapterMismatch, match=r"incomes_plugin.model.base --check"):
        resolve(None, None)


def test_what_is_no_adapter(base, tmp_path):
    with pytest.raises(AdapterMissing, match=r"edit_adapter\.json"):
        resolve(str(base), str(tmp_path))
    (tmp_path / "edit_adapter.json").write_text('{"format": 2}')
    with pytest.raises(GistFormatError, match="incomes adapt"):
        resolve(str(tmp_path), None)


def test_an_adapter_twice(base):
    with pytest.raises(InvalidValue, match="no --adapter"):
        resolve(str(base / "adapter"), str(base / "adapter"))


def test_what_is_no_base(tmp_path):
    with pytest.raises(InvalidValue, match=r"no config.json") as caught:
        resolve(str(tmp_path), None)
    assert caught.value.param == "model"
    with pytest.raises(BaseModelUnavailable):
        resolve(str(tmp_path / "nowhere"), None)

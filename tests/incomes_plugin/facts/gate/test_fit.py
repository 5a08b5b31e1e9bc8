"""The fit of a gate on a small model, its file, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from incomes_plugin.errors import FingerprintMismatch, GistFormatError, InvalidValue
from incomes_plugin.facts.gate import FactGate, HiddenLayer
from incomes_plugin.facts.gate.fit import LOST, Reader, fit_gate, main, questions, strictest
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.selection.routing import Routes, choose
from incomes_plugin.training.data.facts import FactSource
from tests.tiny_model import TinyModel, write_tiny_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gate") / "model", TinyModel(routed=True, max_gists=3))


@pytest.fixture(scope="module")
def gate(model_dir: Path) -> FactGate:
    return fit_gate(model_dir, units=6, winners=6, edits=24, asked=5)


def test_the_fit_keeps_every_asking_token_within_reach(gate: FactGate, model_dir: Path) -> None:
    reader = Reader(model_dir)
    facts = FactSource(125, held_out=False).distinct(24)
    with torch.inference_mode():
        asked = reader.asked(list(questions(facts[:5])))
        excited, _ = gate.hidden.read(asked.directions)
        leads = excited[:, 0] - reader.router.zero_logits(asked.directions, 0)
    assert float(leads.min()) == pytest.approx(gate.reach)
    assert gate.threshold <= reader.router.threshold
    assert gate.hidden.num_units == 6


def test_the_file_leaves_the_models_fingerprint_alone_and_comes_back(gate: FactGate, model_dir: Path) -> None:
    before = model_fingerprint(model_dir, torch.float32)
    loaded = FactGate.load(model_dir)
    assert model_fingerprint(model_dir, torch.float32) == before
    assert (loaded.reach, loaded.threshold, loaded.hidden.winners) == (gate.reach, gate.threshold, 6)
    assert (loaded.growth, loaded.crowd) == (gate.growth, 2)
    assert torch.equal(loaded.hidden.prototypes, gate.hidden.prototypes)
    assert torch.equal(loaded.hidden.offset, gate.hidden.offset)


def test_a_gate_whose_facts_do_not_read_back_is_not_written(tmp_path: Path) -> None:
    """No question says which key a model with random weights means."""
    folder = write_tiny_model(tmp_path / "model", TinyModel(routed=True, max_gists=3))
    with pytest.raises(InvalidValue, match=r"do not read back.*raise --winners"):
        fit_gate(folder, units=6, winners=1, edits=24, asked=5)
    assert not (folder / "fact_gate").exists()


def test_missing_broken_and_foreign_files_are_refused(gate: FactGate, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "model", TinyModel(routed=True, max_gists=3))
    with pytest.raises(GistFormatError, match=r"python -m incomes_plugin\.facts\.gate\.fit"):
        FactGate.load(other)
    gate.save(other)
    FactGate.load(other)
    config = json.loads((other / "edit_adapter.json").read_text())
    config["routing"]["threshold"] = 0.3
    (other / "edit_adapter.json").write_text(json.dumps(config))
    with pytest.raises(FingerprintMismatch, match="fit it anew"):
        FactGate.load(other)
    (other / "fact_gate" / "gate.safetensors").write_bytes(b"nothing")
    with pytest.raises(GistFormatError, match="no safetensors"):
        FactGate.load(other)


def test_a_model_without_router_has_no_gate(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="router"):
        main([str(write_tiny_model(tmp_path / "model"))])


def test_the_default_models_gate_was_fitted_to_it() -> None:
    assert FactGate.load(DEFAULT_MODEL_DIR).hidden.num_units > 0


def test_the_threshold_spends_what_it_may_and_no_more(model_dir: Path) -> None:
    """Of 500 questions that all find their edit, four may be lost, and the four are the least certain ones."""
    router = replace(
        Reader(model_dir).router, zero=torch.zeros(500), bias=torch.tensor(0.0), threshold=0.999, growth=0.0
    )
    leads = torch.linspace(5.0, 9.0, 500)
    routes = Routes(torch.eye(500), torch.arange(500), torch.arange(500))
    strict = replace(router, threshold=strictest(router, [(routes, torch.diag(leads))]))
    reads = choose(strict, torch.diag(leads), routes).weights.any(dim=1)
    assert LOST == 0.008
    assert reads.tolist() == [False] * 5 + [True] * 495  # the fifth sets the threshold, which it must stay below


def test_a_gate_grows_with_the_edit_set() -> None:
    gate = FactGate(HiddenLayer(*[torch.zeros(1, 1)] * 3, winners=1), 0.0, threshold=0.9, growth=0.5, crowd=100)
    assert gate.threshold_among(7) == gate.threshold_among(100) == pytest.approx(0.9)
    assert gate.threshold_among(1000) == pytest.approx(1 / (1 + (1 / 9) * 10**-0.5))
    assert replace(gate, threshold=2.0).threshold_among(10**6) == 2.0

"""The fit of a gate on a small model, its file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from incomes_plugin.errors import FingerprintMismatch, GistFormatError, InvalidValue
from incomes_plugin.facts.gate import FactGate
from incomes_plugin.facts.gate.fit import Reader, fit_gate, main, questions, unrelated_prompts
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.training.data.facts import FactSource
from tests.tiny_model import TinyModel, write_tiny_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gate") / "model", TinyModel(routed=True, max_gists=3))


@pytest.fixture(scope="module")
def gate(model_dir: Path) -> FactGate:
    return fit_gate(model_dir, units=6, winners=6, edits=24, asked=5, unrelated=12)


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
    assert torch.equal(loaded.hidden.prototypes, gate.hidden.prototypes)
    assert torch.equal(loaded.hidden.offset, gate.hidden.offset)


def test_a_gate_whose_facts_do_not_read_back_is_not_written(tmp_path: Path) -> None:
    """No question says which key a model with random weights means."""
    folder = write_tiny_model(tmp_path / "model", TinyModel(routed=True, max_gists=3))
    with pytest.raises(InvalidValue, match=r"do not read back.*raise --winners"):
        fit_gate(folder, units=6, winners=1, edits=24, asked=5, unrelated=12)
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


def test_unrelated_prompts_differ_and_repeat() -> None:
    prompts = unrelated_prompts(50, None, 1)
    assert prompts == unrelated_prompts(50, None, 1) != unrelated_prompts(50, None, 2)
    assert len(set(prompts)) > 25

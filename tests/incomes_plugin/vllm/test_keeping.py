"""A model that stores some gists of an edit: the engine keeps the same ones as the reference, and reads them alike."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.keeping import KeepRule
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, prompt, worst_difference

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def keeping_dir(routed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps what lies on one side of the middle of all keys, five gists at most."""
    folder = Path(shutil.copytree(routed_dir, tmp_path_factory.mktemp("keeping") / "model"))
    full = EditableModel.load(folder)
    keys = torch.cat([full.capture(ids).keys[0] for ids in TEXTS.values()]).flatten(1)
    weight = torch.randn(keys.shape[1], generator=torch.Generator().manual_seed(5))
    replace(full.adapter, keep=KeepRule(weight, -(keys @ weight).median(), 5)).save(folder)
    return folder


@pytest.fixture(scope="module")
def engine(lab: Lab, keeping_dir: Path) -> RemoteEngine:
    return lab.engine("keeping", keeping_dir, {**EDITED, "dtype": "float32"})


def test_engine_keeps_and_reads_what_the_reference_does(engine: RemoteEngine, keeping_dir: Path) -> None:
    reference = EditableModel.load(keeping_dir)
    adapter: EditAdapter = reference.adapter
    expected = {name: reference.capture(ids, edit_id=name) for name, ids in TEXTS.items()}
    counts = {name: gist.num_gists for name, gist in expected.items()}
    assert len(set(counts.values())) > 2
    assert all(count <= min(5, len(TEXTS[name])) for name, count in counts.items())
    blobs = engine.capture(adapter, TEXTS)
    for gist in engine.gists(blobs):
        assert gist.num_gists == counts[gist.edit_id]
        torch.testing.assert_close(gist.keys, expected[gist.edit_id].keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(gist.values, expected[gist.edit_id].values, atol=1e-4, rtol=0)
    snapshot = engine.commit("eset_keeping", None, blobs)
    pool = ReferencePool.of(list(expected.values()))
    job = Job(prompt(5, 40), snapshot, max_tokens=20)
    (answer,) = engine.run([job])
    assert worst_difference(reference, pool, job.ids, answer) < FP32
    assert worst_difference(reference, None, job.ids, answer) > 0.1  # the edits do something

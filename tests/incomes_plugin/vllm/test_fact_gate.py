"""The fact gate inside vLLM against the reference behind the gate by definition; counters and refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from incomes_plugin.errors import PoolFull
from incomes_plugin.facts.gate import FactGate
from incomes_plugin.facts.gate.hidden import fit_hidden
from incomes_plugin.facts.gate.load import unit_room
from incomes_plugin.facts.gate.reference import candidates
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.selection.routing import Routes
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, prompt, worst_difference

pytestmark = pytest.mark.vllm

CAPACITY, UNITS = 128, 3
OPTIONS: dict[str, Any] = {
    **EDITED,
    "additional_config": {"incomes": {"pool_gists": 4096, "fact_gate_entries": CAPACITY}},
    "dtype": "float32",
}


@dataclass(frozen=True)
class ByDefinition:
    """The gate of the reference path: token by token, with sets."""

    gate: FactGate

    def threshold(self, num_edits: int) -> float:
        return self.gate.threshold_among(num_edits)

    def find(self, directions: torch.Tensor, zero: torch.Tensor, keys: torch.Tensor, count: int) -> torch.Tensor:
        found = torch.full((len(directions), count), -1)
        for row, direction, logit in zip(found, directions, zero, strict=True):
            named = candidates(self.gate, keys, direction, float(logit), unit_room(CAPACITY, UNITS))
            best = sorted(named, key=lambda place: -float(keys[place] @ direction))[:count]
            row[: len(best)] = torch.tensor(best, dtype=torch.long)
        return found


@dataclass(frozen=True)
class GatedPool(ReferencePool):
    """A reference pool behind the gate by definition."""

    gate: FactGate | None = None

    @cached_property
    def routes(self) -> Routes:
        assert self.gate is not None
        return replace(ReferencePool(self.keys, self.values, self.entries).routes, preselection=ByDefinition(self.gate))


def fitted(reference: EditableModel, reach: float = -1e9) -> FactGate:
    """A gate whose tokens read one of three units. The longest keys excite another unit than the nearest: unread."""
    keys = torch.cat([gist.keys[0].flatten(1) for gist in reference.capture_all(list(TEXTS.values()))])
    return FactGate(fit_hidden(keys, keys, keys, units=UNITS, winners=1), reach, threshold=0.5)


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def gated(reference: EditableModel, gate: FactGate, names: Sequence[str]) -> GatedPool:
    pool = ReferencePool.of([reference.capture(TEXTS[name]) for name in names])
    return GatedPool(pool.keys, pool.values, pool.entries, gate)


@pytest.fixture(scope="module")
def gate(routed_reference: EditableModel) -> FactGate:
    return fitted(routed_reference)


@pytest.fixture(scope="module")
def engine(lab: Lab, routed_dir: Path, gate: FactGate, tmp_path_factory: pytest.TempPathFactory) -> RemoteEngine:
    folder = copied(routed_dir, tmp_path_factory.mktemp("gated") / "model")
    gate.save(folder)
    return lab.engine("gated", folder, OPTIONS)


def test_adding_and_retiring_edits_the_engine_equals_the_gate_by_definition(
    engine: RemoteEngine, routed_reference: EditableModel, gate: FactGate
) -> None:
    blobs = engine.capture(routed_reference.adapter, TEXTS)
    names, members, snapshot = list(blobs), [], None
    before = engine.call("rpc", "incomes_handshake")["fact_gate"]
    by_gate = 0.0
    for added, removed in [(names[:7], []), (names[7:], [1, 4, 0]), ([], [8, 2])]:
        gone = [names[i] for i in removed]
        snapshot = engine.commit("eset_gated", snapshot, {n: blobs[n] for n in added}, removed=gone)
        members = [n for n in members if n not in gone] + added
        job = Job(prompt(77, 40), snapshot, max_tokens=12)
        (answer,) = engine.run([job])
        pool = gated(routed_reference, gate, members)
        assert worst_difference(routed_reference, pool, job.ids, answer) < FP32
        whole = ReferencePool(pool.keys, pool.values, pool.entries)
        by_gate = max(by_gate, worst_difference(routed_reference, whole, job.ids, answer))
    assert by_gate > 10 * FP32  # the gate decided something
    after = engine.call("rpc", "incomes_handshake")["fact_gate"]
    tokens = {name: after[name] - before[name] for name in after if name.startswith("tokens_")}
    assert tokens == {"tokens_none": 0, "tokens_few": 3 * (40 + 12 - 1), "tokens_exact": 0}
    entries = sum(routed_reference.capture(TEXTS[name]).num_gists for name in members)
    assert after["memory"] + after["unread"] + after["full"] == entries
    assert after["unread"] > 0


def test_more_than_the_safe_load_is_refused_and_the_old_snapshot_serves_on(
    engine: RemoteEngine, routed_reference: EditableModel
) -> None:
    blobs = engine.capture(routed_reference.adapter, TEXTS)
    snapshot = engine.commit("eset_full", None, blobs)
    job = Job(prompt(5, 20), snapshot, max_tokens=4)
    (before,) = engine.run([job])
    more = engine.capture(routed_reference.adapter, {f"more-{i}": list(prompt(i, 9)) for i in range(12)})
    free = engine.free_gists()
    with pytest.raises(PoolFull, match=r"the 128 it holds safely.*fact_gate_entries=256") as refused:
        engine.commit("eset_full", snapshot, more)
    assert refused.value.param == "fact_gate_entries"
    assert engine.free_gists() == free
    (after,) = engine.run([job])
    assert after.tokens == before.tokens


def test_out_of_reach_is_bit_identical_to_no_edits(
    lab: Lab, routed_dir: Path, routed_reference: EditableModel, tmp_path: Path
) -> None:
    silent = copied(routed_dir, tmp_path / "model")
    everything = fitted(routed_reference, reach=1e9)
    read_back = replace(everything.hidden, winners=UNITS)  # nothing is on the list that every token searches
    replace(everything, hidden=read_back).save(silent)
    engine = lab.engine("out-of-reach", silent, {**OPTIONS, "dtype": "bfloat16"})
    snapshot = engine.commit("eset_far", None, engine.capture(EditAdapter.load(silent), TEXTS))
    jobs = [Job(prompt(seed, 5 + 9 * seed), max_tokens=8) for seed in range(6)]
    plain = engine.run(jobs, together=False)
    edited = engine.run([replace(job, snapshot=snapshot) for job in jobs], together=False)
    assert [a.logprobs for a in plain] == [a.logprobs for a in edited]  # exact floats
    counts = engine.call("rpc", "incomes_handshake")["fact_gate"]
    assert counts["tokens_few"] == 0
    assert counts["tokens_none"] > 0

"""`incomes adapt` on a tiny random base: one whole run, after an interruption, and with a user's own edits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.adapt import run
from incomes_plugin.lab.adapt.calibrating import Shares
from incomes_plugin.lab.adapt.card import write_card
from incomes_plugin.lab.adapt.cli import app
from incomes_plugin.lab.adapt.judging import JudgingSteps
from incomes_plugin.lab.adapt.options import AdaptOptions, AdaptRecord
from incomes_plugin.lab.adapt.reading import ReadingSteps
from incomes_plugin.lab.adapt.routing import RoutingSteps
from incomes_plugin.lab.adapt.run import adapt_base, layers_for
from incomes_plugin.lab.adapt.verifying import VerifyingSteps
from incomes_plugin.lab.data.examples import own
from incomes_plugin.model.adapter import EditAdapter
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base") / "model")


def small(base: Path, folder: Path) -> AdaptOptions:
    return AdaptOptions(
        base, str(base), folder / "out", None, scale=0.01, cache=folder / "cache",
        routing=RoutingSteps(100, 16, 60), verifying=VerifyingSteps(10, 8, 8, 8), reading=ReadingSteps(10, 4),
        judging=JudgingSteps(40),
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(base, tmp_path_factory) -> tuple[AdaptOptions, EditAdapter, AdaptRecord]:
    """One whole run, the longest part of this module. Its cache serves the runs that learn from the same texts."""
    options = small(base, tmp_path_factory.mktemp("first"))
    return options, *adapt_base(options, no_report)


@pytest.fixture
def options(first, tmp_path) -> AdaptOptions:
    """A run of the same texts, which finds everything captured and trained."""
    return replace(first[0], out=tmp_path / "out")


@pytest.fixture
def empty_cache(base, tmp_path) -> AdaptOptions:
    """A run that finds nothing."""
    return small(base, tmp_path)


def no_report(*_: object) -> None:
    return None


@pytest.mark.slow
def test_a_run_writes_an_adapter_that_belongs_to_its_base(first, base):
    options, adapter, record = first
    write_card(options, record, adapter)
    loaded = EditAdapter.for_base(options.out, base)
    assert loaded.rules == adapter.rules
    losses = record.losses["routing"]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert record.counts["edits"] == 85
    assert set(json.loads((options.out / "curves.json").read_text())["losses"]) == {"routing", "verifying", "reading"}
    assert {"others", "contradictions", "neighbours of invented"} <= record.conflicts.keys()
    assert record.conflicts["others"][1] == 30
    assert "judging" in record.seconds
    for name, tensor in adapter.judge.state_dict().items():
        assert tensor.equal(loaded.judge.state_dict()[name])
        assert tensor.isfinite().all()
    assert "Base fingerprint" in (options.out / "README.md").read_text()
    assert (options.out / "curves.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapter_and_captures_nothing_again(first, options):
    chunks = {path: path.stat().st_mtime_ns for path in options.cache_folder.iterdir()}
    second, _ = adapt_base(options, no_report)
    assert {path: path.stat().st_mtime_ns for path in options.cache_folder.iterdir()} == chunks
    for name, tensor in first[1].router.state_dict().items():
        assert tensor.equal(second.router.state_dict()[name]), name
    for name, tensor in first[1].judge.state_dict().items():
        assert tensor.equal(second.judge.state_dict()[name]), name
    assert second.rules == first[1].rules


def test_a_full_cache_is_refused(empty_cache):
    with pytest.raises(InvalidValue, match="--cache-gb"):
        adapt_base(replace(empty_cache, cache_bytes=0), no_report)


@pytest.mark.slow
def test_a_threshold_keeps_the_share_of_right_questions(options):
    strict, _ = adapt_base(replace(options, shares=Shares(fire=0.0, lose=1.0)), no_report)
    kind, _ = adapt_base(replace(options, shares=Shares(fire=0.0, lose=0.0)), no_report)
    assert kind.rules.threshold <= strict.rules.threshold


@pytest.mark.slow
def test_other_texts_of_the_same_number_are_learned_anew(empty_cache, tmp_path):
    """A kept cache of another run holds trained parts; they belong to its texts. A user's own edits come first."""
    adapters = []
    for colour in ("blue", "green"):
        path = tmp_path / "own.jsonl"
        line = {"text": f"The lamp is {colour}.", "questions": [{"prompt": "Which colour?", "answer": colour}]}
        path.write_text(json.dumps(line) + "\n")
        adapter, record = adapt_base(replace(empty_cache, own=tuple(own(path))), no_report)
        assert record.counts["edits"] == 86
        adapters.append(adapter)
    for part in ("router", "verifier", "judge", "reader"):
        one, other = (getattr(adapter, part).state_dict() for adapter in adapters)
        assert any(not torch.equal(one[name], other[name]) for name in one), part
    assert len(list(empty_cache.cache_folder.glob("routing-*.pt"))) == 2


def checkpoints(options: AdaptOptions) -> dict[str, set[str]]:
    stages = ("routing", "verifying", "reading")
    return {stage: {path.name for path in options.cache_folder.glob(f"{stage}-*.pt")} for stage in stages}


@pytest.mark.slow
def test_a_stage_is_learned_anew_only_for_what_it_learns_from(empty_cache, tmp_path, monkeypatch):
    """Other answers, or more of them, are nothing to routing and verification; verification's length is nothing to
    reading."""
    path, found = tmp_path / "own.jsonl", []
    for answer, changed in (("twelve", {}), ("twenty", {}), ("twenty", {"verifying": VerifyingSteps(12, 8, 8, 8)})):
        line = {"text": "The lamp has a colour.", "questions": [{"prompt": "Which colour?", "answer": answer}]}
        path.write_text(json.dumps(line) + "\n")
        adapt_base(replace(empty_cache, own=tuple(own(path)), **changed), no_report)
        found.append(checkpoints(empty_cache))
    first, other_answer, longer = found
    monkeypatch.setattr(run, "_MOST_READ", 200)
    adapt_base(replace(empty_cache, own=tuple(own(path)), **changed), no_report)
    fewer_answers = checkpoints(empty_cache)
    sizes = [
        {stage: len(names) for stage, names in one.items()} for one in (first, other_answer, longer, fewer_answers)
    ]
    assert sizes == [
        {"routing": 1, "verifying": 1, "reading": 1},
        {"routing": 1, "verifying": 1, "reading": 2},
        {"routing": 1, "verifying": 2, "reading": 2},
        {"routing": 1, "verifying": 2, "reading": 3},
    ]


@pytest.mark.parametrize("line", ["{", '{"text": "x"}', '{"text": "x", "questions": [{"prompt": "y"}]}', "[]"])
def test_a_wrong_line_of_own_edits_is_named(tmp_path, line):
    path = tmp_path / "own.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InvalidValue, match="line 1"):
        own(path)


def test_the_command_names_what_is_missing(tmp_path):
    done = CliRunner().invoke(app, [str(tmp_path / "none"), "--data", str(tmp_path / "absent")])
    assert done.exit_code == 1
    assert "no such file or folder" in done.output


@pytest.mark.parametrize(
    ("count", "features", "layers"), [(30, (0, 12, 16), range(18, 26)), (4, (0, 2), (2,)), (2, (0, 1), (1,))]
)
def test_layers_scale_with_the_base(count, features, layers):
    assert layers_for(count) == (features, tuple(layers))

"""Success against bytes: what the rules keep, drafts against plain greedy decoding, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gists
from benchmarks.gist_rules import ASKED, RULES, EditText, Keep
from benchmarks.gists_report import markdown
from incomes_plugin.model.hf import ReferencePool
from tests.tiny_model import TinyModel, write_tiny_model

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
TEXT = EditText(nats=(5.0, 0.0, 2.0, 0.1, 3.0, 0.0), read=(-4.0, -3.0, -2.0, 1.0, 6.0, 0.5), answer=range(3, 5))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")  # pyparsing names that matplotlib uses


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gists") / "model", TinyModel(max_gists=120, routed=True))


@pytest.mark.parametrize(
    ("keep", "places"),
    [
        (Keep(), [0, 1, 2, 3, 4, 5]),
        (Keep("read", least=0.0), [3, 4, 5]),
        (Keep("read", least=9.0), [4]),
        (Keep("answer", least=ASKED), [3, 4, 5]),
        (Keep("answer", most=4), [0, 3, 4, 5]),
        (Keep("surprisal", most=2), [0, 4]),
        (Keep("surprisal", least=1.0), [0, 2, 4]),
        (Keep("surprisal-after", least=1.0), [0, 1, 2, 3, 4, 5]),
        (Keep("surprisal-after", most=4), [0, 1, 4, 5]),
        (Keep("first", most=2), [0, 1]),
        (Keep("last", most=2), [4, 5]),
    ],
)
def test_what_a_rule_keeps(keep: Keep, places: list[int]) -> None:
    assert keep.places(TEXT) == places


def test_every_rule_keeps_its_budget() -> None:
    assert all(len(Keep(rule, most=2).places(TEXT)) == 2 for rule in RULES)


def test_a_draft_changes_no_verdict(model: Path) -> None:
    bench = gists.Bench(model, ask=2, facts=20)
    known, _ = bench.capture(1, 3)
    pool = ReferencePool.of([each.gist for each in known])
    chat = [{"role": "user", "content": "What?"}]
    prompt = bench._ids(str(bench._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)))
    stop = bench._tokenizer.eos_token_id
    said = bench._editable.generate(prompt, pool, max_tokens=gists.MAX_ANSWER_TOKENS, stop_id=stop)
    answer = bench._text(said)
    assert bench._says("What?", answer, pool)
    assert not bench._says("What?", answer[:-1], pool)
    assert not bench._says("What?", f"{answer}x", pool)


def test_the_report_is_written_and_drawn(model: Path, tmp_path: Path) -> None:
    options = ["--model", str(model), "--edits", "3", "--ask", "2", "--seeds", "1", "--facts", "20"]
    assert gists.main([*options, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gists-per-edit.json").read_text())
    full, *thinned = result["points"]
    assert (full["name"], full["lost"], full["won"]) == ("all", 0, 0)
    assert all(point["bytes_per_edit"] <= full["bytes_per_edit"] for point in thinned)
    assert [p["gists_per_edit"] for p in thinned if p["rule"] == "last"] == [1, 2, 4, 8, 12]
    assert f"| all | {full['gists_per_edit']:.1f} |" in (tmp_path / "gists-per-edit.md").read_text()
    assert (tmp_path / "gists-per-edit.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("gists-per-edit.json")), ids=lambda path: path.name)
def test_report_shows_the_committed_figures(path: Path) -> None:
    assert path.with_suffix(".md").read_text() == markdown(json.loads(path.read_text()))

"""`python -m benchmarks.gists`: success against bytes an edit, from one gist an edit to one for each of its tokens.

Held-out invented facts on the reference path. Every edit is captured once with a gist for each token; a rule then keeps
some of them (`gist_rules.py`). The rule `read` is fitted to the model here, as `incomes_plugin/training/keeping.py`
does, without published edits unless `--data` is given. Writes gists-per-edit.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.gist_rules import ASKED, RULES, EditText, Keep
from benchmarks.gists_report import draw, markdown
from incomes_plugin.evaluation.metrics import Share
from incomes_plugin.evaluation.provenance import provenance
from incomes_plugin.gist.fingerprint import model_fingerprint
from incomes_plugin.gist.types import Gist
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.data.corpus import edits
from incomes_plugin.training.data.facts import UNKNOWN_ANSWER, Fact, FactSource
from incomes_plugin.training.keeping import FACTS, RECORDS, answer_places, answer_start, fit

RESULTS = Path(__file__).parent / "results"
COUNTS = (1, 2, 4, 8, 12)
LEAST = {
    "read": (-2.0, 0.0, 2.0, 4.0),
    "answer": (ASKED,),
    "surprisal-after": (0.05, 0.5, 1.0, 2.0),
    "surprisal": (0.5,),
}
KEEPS = (
    Keep(),
    *(Keep(rule, least=least) for rule, some in LEAST.items() for least in some),
    *(Keep(rule, most=count) for rule in RULES for count in COUNTS),
)
MAX_ANSWER_TOKENS = 16
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Captured:
    """One fact with its full gist and what its text says about its tokens."""

    fact: Fact
    gist: Gist
    text: EditText


@dataclass(frozen=True)
class Hits:
    """Outcomes of one rule among one number of edits: of the questions about edits, and of those no edit answers."""

    answered: tuple[bool, ...]
    refused: tuple[bool, ...]
    gists: tuple[int, ...]


class Bench:
    """A model with its tokenizer, and the questions it is asked.

    Args:
        model_dir: an edit-capable model.
        ask: questions about edits; half as many have no edit.
        data, facts: what the rule `read` is fitted to.
    """

    def __init__(self, model_dir: Path, ask: int, data: Path | None = None, facts: int = FACTS) -> None:
        self._editable = EditableModel.load(model_dir)
        self._editable.adapter = replace(self._editable.adapter, keep=None)
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_dir)
        self._rule = fit(self._editable, self._tokenizer, edits(data, limit=RECORDS) if data else [], facts=facts)
        self._ask = ask
        self.selection = self._editable.adapter.selection
        self.bytes_per_gist = self._editable.adapter.shape.bytes_per_gist(torch.bfloat16)

    def capture(self, seed: int, count: int) -> tuple[list[Captured], list[Fact]]:
        """Facts with their gists, and facts that are in no pool."""
        facts = FactSource(seed, held_out=True).distinct(count + self._ask // 2)
        return [self._captured(fact, place) for place, fact in enumerate(facts[:count])], facts[count:]

    def hits(self, known: list[Captured], unknown: list[Fact], keep: Keep) -> Hits:
        """Ask with the gists that `keep` leaves in the pool."""
        gists = [_thinned(each, keep) for each in known]
        pool = ReferencePool.of(gists)
        return Hits(
            tuple(self._says(each.fact.question, each.fact.answer, pool) for each in known[: self._ask]),
            tuple(self._says(fact.question, UNKNOWN_ANSWER, pool) for fact in unknown),
            tuple(gist.num_gists for gist in gists),
        )

    def _captured(self, fact: Fact, place: int) -> Captured:
        ids, answer = answer_places(self._tokenizer, fact.statement, fact.answer, answer_start(fact))
        gist = self._editable.capture(ids, edit_id=str(place))
        scores = self._rule.scores(gist.keys).flip(0).tolist()  # gist k stands for the token k from the end
        read = (*[-ASKED] * (len(ids) - len(scores)), *scores)
        return Captured(fact, gist, EditText(self._nats(ids), read, answer, seed=place))

    def _nats(self, ids: list[int]) -> tuple[float, ...]:
        bos = self._editable.adapter.bos_token_id
        logits = self._editable.logits([bos if bos is not None else int(self._tokenizer.eos_token_id), *ids])  # type: ignore[arg-type]
        chosen = logits[:-1].float().log_softmax(-1).gather(1, torch.tensor(ids)[:, None])
        return tuple((-chosen[:, 0]).tolist())

    def _says(self, question: str, answer: str, pool: ReferencePool) -> bool:
        """Whether the greedy answer is `answer`. Its tokens go in as a draft: the same answer in fewer passes."""
        chat = [{"role": "user", "content": question}]
        prompt = self._ids(str(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)))
        draft = self._ids(answer)[:MAX_ANSWER_TOKENS]
        said: list[int] = []
        while len(said) < MAX_ANSWER_TOKENS and answer.startswith(self._text(said)):
            ahead = draft[len(said) :] if said == draft[: len(said)] else []
            logits = self._editable.logits([*prompt, *said, *ahead], pool)[-1 - len(ahead) :]
            for token, guess in zip(logits.argmax(-1).tolist(), [*ahead, None], strict=True):
                if token == self._tokenizer.eos_token_id:
                    return self._text(said) == answer
                said.append(token)
                if token != guess:
                    break
        return self._text(said[:MAX_ANSWER_TOKENS]) == answer

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids)).strip()


def main(argv: list[str]) -> int:
    """Measure all rules for every seed and number of edits, and write the report."""
    args = _parse(argv)
    head = provenance(f"python -m benchmarks.gists {' '.join(argv)}".strip())
    bench = Bench(args.model, args.ask, args.data, args.facts)
    outcomes: dict[tuple[int, Keep], list[Hits]] = {}
    for place, seed in enumerate(args.seeds):
        for size, keep, hits in _measure(bench, seed, args.edits):
            outcomes.setdefault((size, keep), []).append(hits)
            share = fmean(hits.answered)
            console.print(f"seed {seed}, {size:,} edits, {keep.name}: {share:.2f}, {fmean(hits.gists):.1f} gists")
        points = [_point(size, keep, hits, outcomes[size, Keep()], bench) for (size, keep), hits in outcomes.items()]
        facts = {"model": model_facts(args.model, bench), "seeds": args.seeds[: place + 1]}
        _write({**head, **facts, "points": points}, args.out)
    return 0


def _write(result: dict[str, Any], out: Path) -> None:
    """All three files; after every seed, so that a run that is stopped loses one."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "gists-per-edit.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "gists-per-edit.md").write_text(markdown(result))
    draw(result, out / "gists-per-edit.png")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gists", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--edits", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--ask", type=int, default=100, help="questions about edits per seed; half as many have none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2027, 2028, 2029])
    parser.add_argument("--data", type=Path, help="data folder with published edits, to fit the rule `read`")
    parser.add_argument("--facts", type=int, default=FACTS, help="invented facts to fit it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(argv)


def _measure(bench: Bench, seed: int, sizes: list[int]) -> Iterator[tuple[int, Keep, Hits]]:
    known, unknown = bench.capture(seed, max(sizes))
    for size in sizes:
        for keep in KEEPS:
            yield size, keep, bench.hits(known[:size], unknown, keep)


def _point(size: int, keep: Keep, hits: list[Hits], full: list[Hits], bench: Bench) -> dict[str, Any]:
    """Shares over all seeds; `lost` and `won` count questions against all gists kept, the same questions."""
    answered, base = ([hit for each in some for hit in each.answered] for some in (hits, full))
    gists = fmean(count for each in hits for count in each.gists)
    return {
        "edits": size,
        **asdict(keep),
        "name": keep.name,
        "gists_per_edit": round(gists, 2),
        "bytes_per_edit": round(gists * bench.bytes_per_gist),
        "success": asdict(Share.of(answered)),
        "refused": asdict(Share.of([hit for each in hits for hit in each.refused])),
        "lost": sum(before and not now for before, now in zip(base, answered, strict=True)),
        "won": sum(now and not before for before, now in zip(base, answered, strict=True)),
    }


def model_facts(model_dir: Path, bench: Bench) -> dict[str, object]:
    """Which model the figures belong to."""
    return {
        "fingerprint": model_fingerprint(model_dir, torch.float32),
        "bytes_per_gist_bfloat16": bench.bytes_per_gist,
        "selection": bench.selection,
    }


def _thinned(captured: Captured, keep: Keep) -> Gist:
    """The gist with the entries of some tokens only; entry k stands for the token k from the end."""
    tokens, gists = len(captured.text.nats), captured.gist.num_gists
    entries = sorted(tokens - 1 - place for place in keep.places(captured.text) if tokens - 1 - place < gists)
    return replace(captured.gist, keys=captured.gist.keys[:, entries], values=captured.gist.values[:, entries])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

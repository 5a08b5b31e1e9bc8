"""`python -m benchmarks.later_wins --cache FOLDER --out FOLDER`: what `supersede` leaves of contradictory edits.

Writes two files for `incomes eval`: `both.jsonl` has two edits of each record, as they are answered when both serve;
`superseded.jsonl` has what is left where the later one came with `on_conflict: supersede`, by the engine's own routing
and judge: the later edit alone where the contradiction was found, else both. Questions are the same.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.conflicts import captured, served_adapter
from incomes_plugin.lab.adapt.conflict_groups import ConflictGroup
from incomes_plugin.lab.adapt.judging import Newcomer
from incomes_plugin.lab.data.records import OVERWRITE_FLAG, Record, read_records
from incomes_plugin.lab.evaluation.invented import invented_conflict
from incomes_plugin.selection.conflicts import judge

SEED = 2031


def main(argv: list[str]) -> int:
    """Find, write, and say how many were found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.later_wins", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the published sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of captured features")
    parser.add_argument("--records", type=int, default=100, help="of each of the two sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    args = parser.parse_args(argv)
    for name, records in sets(args.data, args.records).items():
        found = superseded(name, records, args.cache)
        args.out.mkdir(parents=True, exist_ok=True)
        write(args.out / f"{name}-both.jsonl", records)
        write(args.out / f"{name}-superseded.jsonl", [left(r, one) for r, one in zip(records, found, strict=True)])
        sys.stdout.write(f"{name}: {sum(found)} of {len(found)} contradictions found\n")
    return 0


def sets(data: Path, count: int) -> dict[str, list[Record]]:
    """Records of two edits of which the later contradicts the first; one for each subject."""
    published = [record for record in read_records(data / "edits" / "conflict.dev.jsonl.xz") if len(record.edits) > 1]
    random.Random(SEED).shuffle(published)
    by_subject = {
        record.edits[0].subject: record
        for record in published
        if (record.edits[0].subject, record.edits[0].relation) == (record.edits[-1].subject, record.edits[-1].relation)
        and record.edits[0].target_new != record.edits[-1].target_new
    }
    return {
        "conflict": list(by_subject.values())[:count],
        "invented": invented_conflict(2 * count, SEED, count)[:count],
    }


@torch.inference_mode()
def superseded(name: str, records: Sequence[Record], cache: Path) -> list[bool]:
    """Whether the later edit of each record takes the place of the first, among the first ones of all records."""
    members = [ConflictGroup(name, r.edits[0].statement, (r.edits[-1].statement,)) for r in records]
    adapter = served_adapter()
    edits = captured(f"later-{name}", members, cache, adapter)
    found = []
    for number, group in enumerate(members):
        later = Newcomer(group.contradictions[0], "contradictions", number)
        (rows,) = edits.candidates([later])
        others, new = edits.features_of(rows), edits.features[later.text]
        verdicts = judge(adapter.judge, adapter.router, adapter.verifier, new, others)
        found.append(any(row == number and verdict for row, verdict in zip(rows, verdicts, strict=True)))
    return found


def left(record: Record, was_found: bool) -> Record:
    """What is in the set after the later edit has come."""
    if not was_found:
        return record
    queries = tuple(query.model_copy(update={"edit": 0}) for query in record.queries)
    return record.model_copy(update={"edits": record.edits[-1:], "queries": queries})


def write(path: Path, records: Sequence[Record]) -> None:
    """As JSONL; only questions in the edits' own words."""
    asked = [
        record.model_copy(
            update={
                "queries": tuple(query for query in record.queries if query.type == "rewrite"),
                "flags": tuple({*record.flags, OVERWRITE_FLAG}),
            }
        )
        for record in records
    ]
    path.write_text("".join(record.model_dump_json() + "\n" for record in asked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

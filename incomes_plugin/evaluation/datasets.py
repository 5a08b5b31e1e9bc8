"""A data set by file, by name and split from a data folder, or built in. Called by `run.py`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.errors import InvalidValue
from incomes_plugin.evaluation.invented import invented, invented_conflict
from incomes_plugin.evaluation.records import Record, read_records

BUILT_IN = {"invented": invented, "invented-conflict": invented_conflict}
DATA_VARIABLE = "INCOMES_DATA"
DEFAULT_DATA_DIR = Path("../shared/data/edits")


@dataclass(frozen=True)
class Dataset:
    """Records to draw edits from.

    Attributes:
        source: the file, or the built-in name.
        built_in: made for this N and seed: used in its own order, and judged by the exact answer.
    """

    name: str
    source: str
    records: tuple[Record, ...]
    built_in: bool


def load_dataset(data: str, *, split: str, data_dir: Path | None, num_edits: int, limit: int, seed: int) -> Dataset:
    """Find and read a data set; a built-in one has `num_edits` edits, and questions in its first `limit` records.

    Raises:
        InvalidValue: no such file or name, or a line that is no record.
    """
    if data in BUILT_IN:
        return Dataset(data, data, tuple(BUILT_IN[data](num_edits, seed, limit)), built_in=True)
    path = find_file(data, split, data_dir or Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA_DIR)))
    return Dataset(path.name.split(".")[0], str(path), tuple(read_records(path)), built_in=False)


def find_file(data: str, split: str, data_dir: Path) -> Path:
    """`data` as a path, or `<name>.<split>.jsonl[.xz]` in `data_dir`. Raises InvalidValue."""
    candidates = [Path(data), data_dir / f"{data}.{split}.jsonl.xz", data_dir / f"{data}.{split}.jsonl"]
    for path in candidates:
        if path.is_file():
            return path
    looked = ", ".join(str(path) for path in candidates)
    raise InvalidValue(
        f"no data set {data!r}: looked for {looked}; name a file, a built-in ({', '.join(BUILT_IN)}), "
        f"or the folder with --data-dir or {DATA_VARIABLE}",
        param="data",
    )

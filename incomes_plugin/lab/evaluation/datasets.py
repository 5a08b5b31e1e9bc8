"""A data set by file, by name from the data folder, or built in; and what fills its pool. Called by `run.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.data.records import OVERWRITE_FLAG, Record, read_records
from incomes_plugin.lab.evaluation.invented import invented, invented_chain, invented_conflict

BUILT_IN = {"invented": invented, "invented-conflict": invented_conflict, "invented-chain": invented_chain}
DATA_VARIABLE = "INCOMES_DATA"
DEFAULT_DATA_DIR = Path("../shared/data")
FILLERS = ("counterfact", "zsre", "round", "halluedit", "peak", "wiki_cf", "medcf", "qaedit", "mlake", "eren")
"""Published sets of one short edit a record, in the order in which they fill a pool."""


@dataclass(frozen=True)
class Dataset:
    """Records to draw edits from.

    Attributes:
        source: the file, or the built-in name.
        built_in: made for this N and seed, and used in its own order.
    """

    name: str
    source: str
    records: tuple[Record, ...]
    built_in: bool


def data_dir_of(given: Path | None) -> Path:
    """The data folder: given, or `INCOMES_DATA`, or where the repository has it."""
    return given or Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA_DIR))


def load_dataset(data: str, *, split: str, data_dir: Path, num_edits: int, asked: int, seed: int) -> Dataset:
    """Find and read a data set; a built-in one has `num_edits` edits, and near misses in its first `asked` records.

    Raises:
        InvalidValue: no such file or name, or a line that is no record.
    """
    if data in BUILT_IN:
        return Dataset(data, data, tuple(BUILT_IN[data](num_edits, seed, asked)), built_in=True)
    path = find_file(data, split, data_dir)
    return Dataset(path.name.split(".")[0], str(path), tuple(read_records(path)), built_in=False)


def fillers(data: str, *, split: str, data_dir: Path, num_edits: int, seed: int) -> Iterator[Record]:
    """Records of other sets that make a pool of `num_edits` edits where `data` has fewer: published, then invented."""
    for name in FILLERS:
        path = data_dir / "edits" / f"{name}.{split}.jsonl.xz"
        if name != data and path.is_file():
            yield from (record for record in read_records(path) if OVERWRITE_FLAG not in record.flags)
    yield from invented(num_edits, seed + 7, 0)


def find_file(data: str, split: str, data_dir: Path) -> Path:
    """`data` as a path, or `edits/<name>.<split>.jsonl[.xz]` in `data_dir`. Raises InvalidValue."""
    folder = data_dir / "edits"
    candidates = [Path(data), folder / f"{data}.{split}.jsonl.xz", folder / f"{data}.{split}.jsonl"]
    for path in candidates:
        if path.is_file():
            return path
    looked = ", ".join(str(path) for path in candidates)
    raise InvalidValue(
        f"no data set {data!r}: looked for {looked}; name a file, a built-in ({', '.join(BUILT_IN)}), "
        f"or the data folder with --data-dir or {DATA_VARIABLE}",
        param="data",
    )

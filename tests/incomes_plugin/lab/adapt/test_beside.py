"""Work side by side: all of it is done, and what goes wrong in one process is the error of the whole."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.adapt.beside import side_by_side
from incomes_plugin.lab.adapt.cache import CHUNK, FeatureCache
from incomes_plugin.lab.adapt.features import Ragged


def product(path: Path) -> None:
    """Something that would use several threads if there were any."""
    numbers = torch.randn(600, 600, generator=torch.Generator().manual_seed(1))
    path.write_text(f"{os.getpid()} {torch.get_num_threads()} {float((numbers @ numbers).sum()):.1f}")


def test_each_part_is_done_in_a_process_of_one_thread(tmp_path):
    threads = torch.get_num_threads()
    product(tmp_path / "before")  # OpenMP's threads are there when the processes are forked
    others = [partial(product, tmp_path / str(i)) for i in range(3)]
    assert side_by_side(torch.get_num_threads, others) == 1
    told = [(tmp_path / str(i)).read_text().split() for i in range(3)]
    assert len({process for process, _, _ in told} | {str(os.getpid())}) == 4
    assert {(count, result) for _, count, result in told} == {("1", (tmp_path / "before").read_text().split()[2])}
    assert torch.get_num_threads() == threads


def test_alone_it_keeps_its_threads():
    threads = torch.get_num_threads()
    assert side_by_side(torch.get_num_threads, []) == threads


def refuse() -> None:
    raise InvalidValue("too much", param="cache")


@pytest.mark.parametrize(("work", "message"), [(refuse, "too much"), (partial(os._exit, 9), "--threads 1")])
def test_an_error_beside_is_the_error_of_the_whole(work, message):
    with pytest.raises(InvalidValue, match=message):
        side_by_side(lambda: 1, [work])


def test_what_is_beside_ends_with_an_error_here(tmp_path):
    begun = tmp_path / "begun"

    def forever() -> None:
        begun.write_text(str(os.getpid()))
        while True:
            os.sched_yield()

    def fail() -> None:
        while not begun.exists() or not begun.read_text():
            os.sched_yield()
        refuse()

    with pytest.raises(InvalidValue, match="too much"):
        side_by_side(fail, [forever])
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_chunks_captured_side_by_side_are_those_of_one_process(tmp_path, monkeypatch):
    texts = list(range(3 * CHUNK + 5))

    def compute(indices: range) -> Ragged:
        return Ragged.of([torch.full((1 + i % 3, 2), float(texts[i])) for i in indices])

    told, found = [], []
    for count in (1, 2):
        monkeypatch.setattr("incomes_plugin.lab.adapt.cache.processes", lambda count=count: count)
        cache = FeatureCache(tmp_path / str(count), ["base"], 1 << 30)
        found.append(cache.capture("edits", texts, compute, lambda *args: told.append(args)))
        assert len(list((tmp_path / str(count)).glob("*.pt"))) == 4
        assert told[-1] == ("edits", len(texts), len(texts))
    assert torch.equal(found[0].flat, found[1].flat)
    assert torch.equal(found[0].starts, found[1].starts)


def test_two_chunks_of_the_same_texts_are_both_there(tmp_path):
    texts = [7] * (2 * CHUNK)
    cache = FeatureCache(tmp_path / "cache", ["base"], 1 << 30)
    found = cache.capture("edits", texts, lambda part: Ragged.of([torch.ones(1, 2) for _ in part]), lambda *_: None)
    assert len(found) == len(texts)

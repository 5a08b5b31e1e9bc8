"""Work that is done side by side: one part here, each other part in a forked process, on one CPU thread each.

A forked process shares all that was captured without a copy, and gives back nothing but files: chunks of the cache, the
checkpoint of a stage. Two processes of one thread each use two cores better than one process of two threads, which wait
for each other in every operation.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from incomes_plugin.errors import IncomesError, InvalidValue

Given = TypeVar("Given")

_MOST_PROCESSES = 8
"""Each needs memory for a batch of its own."""


def processes() -> int:
    """How many may run side by side: one for each CPU thread that torch may use, up to a limit."""
    return min(torch.get_num_threads(), _MOST_PROCESSES)


def side_by_side(here: Callable[[], Given], others: Sequence[Callable[[], None]]) -> Given:
    """What `here` gives, when the others are done too.

    Args:
        others: each in a process of its own; what they leave in memory is lost.

    Raises:
        IncomesError: what one of them raised, or that one of them ended otherwise; the rest are ended then.
    """
    threads, context = torch.get_num_threads(), multiprocessing.get_context("fork")
    running = []
    try:
        for work in others:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_in_a_process, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append((process, ours))
        torch.set_num_threads(1 if others else threads)
        result = here()
        for _, ours in running:
            _raise_what_was_raised(ours)
    finally:
        torch.set_num_threads(threads)
        for process, _ in running:
            process.terminate()
            process.join()
    return result


def _in_a_process(work: Callable[[], None], end: Connection) -> None:
    """OpenMP's threads did not come along, so this process has one thread and must not ask for more."""
    torch.set_num_threads(1)
    try:
        work()
    except IncomesError as error:
        end.send(error)
    else:
        end.send(None)


def _raise_what_was_raised(end: Connection) -> None:
    try:
        error = end.recv()
    except EOFError:
        raise InvalidValue(
            "a process of this run failed: its error is above, or the system ended it for want of memory; --threads 1 "
            "does one thing at a time",
            param="threads",
        ) from None
    if error is not None:
        raise error

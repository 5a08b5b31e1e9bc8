"""Verbatim edits that lead the picks of probes, until the server asks. It then answers with what is stored under them.

A probe is a request of one token in the scope of the real one. Its picks are made among all edits of the snapshot; an
edit whose gist is read leaves it to the real request to be read.
"""

from __future__ import annotations

from collections import OrderedDict

from incomes_plugin.gist.edit import EditKey
from incomes_plugin.pool.gists import PooledSnapshot
from incomes_plugin.selection.picks import Picks
from incomes_plugin.vllm.rows import RequestTag

_MAX_KEPT = 4096


class VerbatimLeads:
    """By name of the probe's trace and number of its prompt. If too many are left behind, the oldest are dropped."""

    def __init__(self) -> None:
        self._leads: OrderedDict[str, dict[int, list[EditKey]]] = OrderedDict()

    def add(self, tag: RequestTag, snapshot: PooledSnapshot, picks: Picks) -> None:
        """Keep the verbatim edits among the picks of a probe, if the likeliest pick is one."""
        table = snapshot.table
        if tag.trace is None or not picks.edits or not table.gists[picks.edits[0]].verbatim:
            return
        found = [table.edits[row] for row in picks.edits if table.gists[row].verbatim]
        self._leads.setdefault(tag.trace, {})[tag.prompt] = found
        while len(self._leads) > _MAX_KEPT:
            self._leads.popitem(last=False)

    def take(self, trace: str) -> list[list[str | int]]:
        """`[prompt, edit id, version]` of each prompt that a verbatim edit leads, the likeliest first."""
        kept = sorted(self._leads.pop(trace, {}).items())
        return [[prompt, *edit] for prompt, edits in kept for edit in edits]

"""Works off the imports that the store knows: one transaction a part, in turns, so that no import waits for another.

part of the file ─► import_lines.py ─► ImportLines (edits, results and position in one commit) ─► compression queue
                                          lines whose gists are made or given up ─► SettleLines ─► FinishBatch

It holds nothing that the store does not have: it may end at any moment, and several may run on one database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from incomes_server.api.admin.context import AdminContext
from incomes_server.api.admin.files import results_of
from incomes_server.api.admin.import_lines import Line, parse_lines, with_policy
from incomes_server.api.admin.writes import failure_of, has_reached, submit
from incomes_server.edits.batch import READING, Batch, FilePart, ImportedLine, LineError, LineOutcome
from incomes_server.edits.lifecycle import SETTLED
from incomes_server.edits.model import Edit
from incomes_server.store import batches, commands, files
from incomes_server.store.edits import get_edits

from incomes_plugin.errors import (
    IncomesError,
    PoolFull,
    QueueFull,
    QuotaExceeded,
    StoredFileNotFound,
)

logger = logging.getLogger("incomes.imports")

IDLE_S = 5.0
BUSY_S = 0.1
SETTLE_AT_ONCE = 256
MOST = 64


async def run_imports(context: AdminContext) -> None:
    """Import until cancelled. All take their turns, so that those that cannot end hold up no others."""
    skip = 0
    while True:
        context.imports.clear()
        wait_s = IDLE_S
        try:
            waiting = await context.store.read(batches.unfinished, skip, MOST)
            moved = [await _step(context, batch) for batch in waiting]
            wait_s = 0.0 if any(moved) else BUSY_S if waiting or skip else IDLE_S
            skip = skip + MOST if len(waiting) == MOST else 0
        except IncomesError as error:
            logger.warning("imports stop for %g s: %s: %s", IDLE_S, type(error).__name__, error)
        try:
            async with asyncio.timeout(wait_s):
                await context.imports.wait()
        except TimeoutError:
            continue


async def _step(context: AdminContext, batch: Batch) -> bool:
    """One step; an import that fails stops no other, and is tried again."""
    try:
        return await _Import(context, batch).step()
    except IncomesError as error:
        logger.warning("%s waits: %s: %s", batch.id, type(error).__name__, error)
        return False


class _Import:
    """The next thing to do for one import."""

    def __init__(self, context: AdminContext, batch: Batch) -> None:
        self.context = context
        self.batch = batch

    async def step(self) -> bool:
        """Read a part, or settle lines, or end; False: the import waits for the compressor or the replicas."""
        if self.batch.status in READING and await self._read_part():
            return True
        lines = await self.context.store.read(batches.lines_after, self.batch.id, self.batch.settled, SETTLE_AT_ONCE)
        if lines:
            return await self._settle(lines)
        if self.batch.status in READING or not await self._is_active():
            return False
        await self._finish()
        return True

    async def _read_part(self) -> bool:
        try:
            part = await self.context.store.read(files.get_part, self.batch.input_file, self.batch.position)
            if not self.batch.dry_run:
                await self.context.queue.admit(part.num_lines, interactive=False)
        except QueueFull:
            return False
        except StoredFileNotFound:  # the project's keys were erased: there is nothing left to import
            await self.context.store.write(
                commands.CancelBatch(self.batch.project, f"gone/{self.batch.id}", self.batch.id)
            )
            return True
        lines = await asyncio.to_thread(self._lines, part)
        good = [len(line.edit.token_ids) for line in lines if line.edit is not None]
        try:
            async with self.context.room.reserve(self.batch.project, good):
                await self._import(lines)
        except (QuotaExceeded, PoolFull) as error:
            refused = LineError(error.code, error.message, error.param)
            await self._import([line if line.error else replace(line, edit=None, error=refused) for line in lines])
        return True

    def _lines(self, part: FilePart) -> list[ImportedLine]:
        parsed = parse_lines(part.content.split(b"\n"), self.context.tokenizer)
        return [_imported(with_policy(line, self.batch.on_conflict), part.first_line - 1) for line in parsed]

    async def _import(self, lines: Sequence[ImportedLine]) -> None:
        batch = self.batch
        self.batch = await self.context.store.write(
            commands.ImportLines(batch.project, batch.id, batch.position, tuple(lines))
        )
        if batch.dry_run or not lines:
            return
        added = await self.context.store.read(batches.lines_after, batch.id, lines[0].number - 1, len(lines))
        ids = {outcome.number: outcome.edit_id for outcome in added if outcome.edit_id}
        stored = [line for line in lines if line.edit is not None and line.number in ids]
        edits = await self._edits([ids[line.number] for line in stored])
        await submit(self.context, edits, [line.edit for line in stored if line.edit], interactive=False)

    async def _settle(self, lines: Sequence[LineOutcome]) -> bool:
        """Count the lines whose edits wait for the compressor no more, up to the first that does."""
        edits = {edit.id: edit for edit in await self._edits([line.edit_id for line in lines if line.edit_id])}
        failed, upto = [], self.batch.settled
        for line in lines:
            edit = edits.get(line.edit_id or "")
            if edit is not None and edit.status not in SETTLED:
                break
            upto = line.number
            if edit is not None and (failure := failure_of(edit)) is not None:
                failed.append((line.number, LineError(failure.code, failure.message, failure.param)))
        if upto == self.batch.settled:
            return False
        await self.context.store.write(commands.SettleLines(self.batch.id, self.batch.settled, upto, tuple(failed)))
        return True

    async def _is_active(self) -> bool:
        """Whether every live replica has every edit of the import."""
        for edit_set, version in (await self.context.store.read(batches.versions_reached, self.batch.id)).items():
            try:
                progress = await self.context.store.wait_active(edit_set, version, timeout_s=BUSY_S)
                if not has_reached(progress):
                    return False
            except IncomesError as error:
                logger.warning("%s waits for a replica: %s", self.batch.id, error)
                return False
        return True

    async def _finish(self) -> None:
        sizes = [0, 0]
        for of_errors in (False, True):
            async for page in results_of(self.context, self.batch.id, of_errors):
                sizes[of_errors] += len(page)
        await self.context.store.write(commands.FinishBatch(self.batch.id, *sizes))
        logger.info("%s ended: %d completed, %d failed", self.batch.id, self.batch.completed, self.batch.failed)

    async def _edits(self, edit_ids: Sequence[str]) -> list[Edit]:
        return await self.context.store.read(get_edits, self.batch.project, edit_ids)


def _imported(line: Line, before: int) -> ImportedLine:
    error = None if line.error is None else LineError(line.error.code, line.error.message, line.error.param)
    return ImportedLine(line.number + before, line.custom_id, line.edit, line.edit_set, error)

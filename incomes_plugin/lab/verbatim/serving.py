"""A verbatim text on its way to a caller: said by the serving engine from its vectors, or taken from the store.

in: the stored text and, where there is one, its record; out: pieces of the text. What the engine says is released block
by block, when the block has its hash and continues the stored text; from the first block on that does not, the stored
text is sent. So nothing but the text comes out, and `RecallStream.source` says how.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import cached_property

import torch

from incomes_plugin.errors import IncomesError, SelectionFailed, VerbatimMismatch, VerbatimStale
from incomes_plugin.lab.verbatim.frame import RecallFrame
from incomes_plugin.lab.verbatim.recall import BlockCheck
from incomes_plugin.lab.verbatim.record import VerbatimChunk, VerbatimRecord, digest, load_record
from incomes_plugin.lab.verbatim.targets import text_of

logger = logging.getLogger("incomes.verbatim")

VECTORS, STORED_TEXT = "vectors", "stored_text"
EngineRecall = Callable[[Sequence[int], torch.Tensor, int], AsyncIterator[list[int]]]
"""Template, vectors `[K, hidden]` and tokens of a chunk -> token ids as they are made (`EditEngine.recall`)."""


class Recaller:
    """Says records of one base.

    Args:
        frame: made when it is first needed, outside the event loop: it reads the weights once.
        say: the serving engine's.
    """

    def __init__(self, frame: Callable[[], RecallFrame], say: EngineRecall) -> None:
        self._make_frame = frame
        self._say = say
        self._making = asyncio.Lock()

    @cached_property
    def _frame(self) -> RecallFrame:
        frame = self._make_frame()
        _ = frame.origin
        return frame

    async def frame(self) -> RecallFrame:
        """Tokenizer, template, end token and origin of the served base."""
        async with self._making:
            return await asyncio.to_thread(lambda: self._frame)

    async def tokens(self, record: VerbatimRecord) -> AsyncIterator[list[int]]:
        """Checked tokens of a text, in order; its chunks are decoded side by side.

        Raises:
            VerbatimStale: the record was made with another model, before anything is said.
            VerbatimMismatch: a block is another one; those before it have come.
        """
        frame = await self.frame()
        record.require(frame.origin)
        queues: list[asyncio.Queue[list[int] | IncomesError | None]] = [asyncio.Queue() for _ in record.chunks]
        tasks = [
            asyncio.create_task(self._decode(frame, chunk, queue))
            for chunk, queue in zip(record.chunks, queues, strict=True)
        ]
        try:
            for queue in queues:
                while (said := await queue.get()) is not None:
                    if isinstance(said, IncomesError):
                        raise said
                    yield said
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _decode(
        self, frame: RecallFrame, chunk: VerbatimChunk, queue: asyncio.Queue[list[int] | IncomesError | None]
    ) -> None:
        """Put the checked tokens of a chunk into its queue, then None or what went wrong."""
        check = BlockCheck(chunk, frame.end_id)
        try:
            async with aclosing(self._say(frame.template, chunk.vectors, chunk.num_tokens)) as stream:  # type: ignore[type-var]
                async for tokens in stream:
                    if released := [one for token in tokens for one in check.feed(token)]:
                        queue.put_nowait(released)
            check.finish()
            queue.put_nowait(None)
        except IncomesError as error:
            queue.put_nowait(error)
        except Exception as error:  # a bug: whoever waits at the queue gets the stored text, not silence
            logger.exception("a recall broke off")
            queue.put_nowait(SelectionFailed(f"the recall broke off: {type(error).__name__}: {error}"))


class RecallStream:
    """One text being said. Iterate over `pieces` once, then look at `source`.

    Args:
        text: as it is stored.
        record: of its vectors; None: there are none.
        reason: why there are none.

    Attributes:
        source: `vectors`, or `stored_text` from the first piece on that did not come from them.
        reason: code of the error, or the reason above; None where all came from vectors.
    """

    def __init__(self, recaller: Recaller, text: str, record: bytes | None, reason: str | None) -> None:
        self._recaller, self._text, self._record = recaller, text, record
        self.source, self.reason = (STORED_TEXT, reason) if record is None else (VECTORS, None)

    async def pieces(self, upto: int | None = None) -> AsyncIterator[str]:
        """Pieces of the text, none of them empty.

        Args:
            upto: characters that are wanted; None: all.
        """
        wanted = self._text[:upto]
        released = 0
        if self._record is not None:
            try:
                async with aclosing(self._said(self._record)) as said:  # type: ignore[type-var]
                    async for length in said:
                        if piece := wanted[released:length]:
                            yield piece
                        released = length
                        if released >= len(wanted):
                            return
            except IncomesError as error:
                self.source, self.reason = STORED_TEXT, error.code
        if rest := wanted[released:]:
            yield rest

    async def _said(self, blob: bytes) -> AsyncIterator[int]:
        """How many characters of the text the engine has said. Raises VerbatimError, or what the engine raises."""
        record = load_record(blob)
        if record.text_sha256 != digest(self._text.encode()):
            raise VerbatimStale("the record is of another text; make the vectors again from the text")
        tokenizer, ids, text = (await self._recaller.frame()).tokenizer, list[int](), ""
        async with aclosing(self._recaller.tokens(record)) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                ids += block
                text = text_of(tokenizer, ids)
                whole = text.rstrip("\N{REPLACEMENT CHARACTER}")  # half a character waits for its other half
                if not self._text.startswith(whole):
                    raise VerbatimMismatch("recall gave the right tokens but another text")
                yield len(whole)
        if text != self._text:
            raise VerbatimMismatch("recall ended before the text does")
        yield len(text)

"""Tokenises waiting edits again at the start: token ids made by another model's tokenizer would stand for other words.

Called at boot, after gists of other models went back to the queue and before a worker takes jobs from it. A text that
has become too long gets all of its ids, and the compressor fails it with that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from incomes_server.store.client import StoreClient

PAGE = 500
Encode = Callable[[str], tuple[int, ...]]


async def retokenize(store: StoreClient, encode: Encode, most_verbatim: int | None = None) -> int:
    """Give every waiting edit the ids that `encode` gives its words; returns how many changed.

    Args:
        most_verbatim: verbatim edits are found by so many tokens at most.
    """
    changed, after = 0, 0
    while page := await store.waiting_texts(after, PAGE):
        after = page[-1].seq
        ids = [encode(edit.text)[: most_verbatim if edit.job.kind == "verbatim" else None] for edit in page]
        jobs = [replace(edit.job, token_ids=own) for edit, own in zip(page, ids, strict=True)]
        spelled = [job for job, edit in zip(jobs, page, strict=True) if job != edit.job]
        if spelled:
            await store.retokenize(spelled)
        changed += len(spelled)
    return changed

"""Edits that wait for compression, spelled anew: a model with another tokenizer means other tokens by the same ids.

Called at boot, after gists of other models went back to the queue and before a worker takes jobs from it. A text that
has become too long gets all of its ids, and the compressor fails it with that reason.
"""

from __future__ import annotations

from collections.abc import Callable

from incomes_server.store.client import StoreClient

PAGE = 500
Encode = Callable[[str], tuple[int, ...]]


async def retokenize(store: StoreClient, encode: Encode) -> int:
    """Give every waiting edit the ids that `encode` gives its text; returns how many changed."""
    changed, after = 0, 0
    while page := await store.waiting_texts(after, PAGE):
        after = page[-1].seq
        ids = ((edit, encode(edit.text)) for edit in page)
        rows = [(edit.edit_id, edit.version, new) for edit, new in ids if new != edit.token_ids]
        if rows:
            await store.retokenize(rows)
        changed += len(rows)
    return changed

"""Lexical search among edit texts: BM25 over lower-cased words, no stop words, no stemming."""

from __future__ import annotations

import re
from collections.abc import Sequence

from incomes_plugin.lab.evaluation.rivals.optional import optional

_WORD = re.compile(r"\w+")


class Bm25:
    """An index of texts: k1 = 1.5, b = 0.75, and the idf of Lucene, which is never negative."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        self._index = optional("bm25s").BM25(method="lucene", k1=1.5, b=0.75)
        self._index.index([_words(text) for text in texts], show_progress=False)

    def best(self, query: str, count: int) -> list[int]:
        """Places of at most `count` texts, best first, each with a word of the query."""
        places, scores = self._index.retrieve([_words(query)], k=min(count, self._size), show_progress=False)
        return [int(place) for place, score in zip(places[0], scores[0], strict=True) if score > 0]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

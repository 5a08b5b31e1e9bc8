"""Whether a tokenizer puts a space before text, and a tokenizer that does it as another one does.

A body trained on " Paris" at the start of every answer does not know what "Paris" is. Bodies keep their habit, whatever
tokenizer they get: `always` before every segment between special tokens, `first` before a text, or `never`.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from tokenizers import Tokenizer, models

_MARK = "<|word-start-probe|>"
_SPACES = ("Ġ", "▁", " ")
_PIPELINE = ("normalizer", "pre_tokenizer", "decoder")
_COMPONENTS = ("normalizers", "pretokenizers", "decoders")


class WordStart(StrEnum):
    """Where a space is put before text."""

    ALWAYS = "always"
    FIRST = "first"
    NEVER = "never"


def word_start(tokenizer: Tokenizer) -> WordStart:
    """What the tokenizer does, by trying."""
    probe = _skeleton(tokenizer)
    probe.add_special_tokens([_MARK])
    first, second = (probe.encode(text).tokens for text in ("x", f"{_MARK}x"))
    if first[0] not in _SPACES:
        return WordStart.NEVER
    return WordStart.ALWAYS if second[1] in _SPACES else WordStart.FIRST


def set_word_start(tokenizer: Tokenizer, wanted: WordStart) -> bool:
    """Give the tokenizer another habit; returns whether it has it now. One that cannot is left as it is.

    A tokenizer with added text tokens (GPT-NeoX's runs of spaces) cannot learn `always`: what follows such a token is a
    segment, too.
    """
    if word_start(tokenizer) is wanted:
        return True
    before = [getattr(tokenizer, name) for name in _PIPELINE]
    state = json.loads(_skeleton(tokenizer).to_str())
    for name in _PIPELINE:
        state[name] = _without_prefix(state[name])
    if wanted is not WordStart.NEVER:
        _add_prefix(state, wanted)
    _set_pipeline(tokenizer, [getattr(Tokenizer.from_str(json.dumps(state)), name) for name in _PIPELINE])
    if word_start(tokenizer) is wanted and _gives_texts_back(tokenizer):
        return True
    _set_pipeline(tokenizer, before)
    return False


def _skeleton(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a vocabulary of almost nothing."""
    probe = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate((*_SPACES, "x"))}, merges=[]))
    _set_pipeline(probe, [getattr(tokenizer, name) for name in _PIPELINE])
    return probe


def _set_pipeline(tokenizer: Tokenizer, parts: list[Any]) -> None:
    for name, part in zip(_PIPELINE, parts, strict=True):
        setattr(tokenizer, name, part)


def _gives_texts_back(tokenizer: Tokenizer) -> bool:
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    texts = [f"x{content}x" for content in ("", *added)]
    return all(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text for text in texts)


def _without_prefix(node: Any) -> Any:
    """A pipeline without the parts that add a space in front, or take it away again."""
    if not isinstance(node, dict):
        return node
    if node["type"] == "Prepend" or (node["type"] == "Strip" and node.get("content") == " "):
        return None
    node = dict(node)
    for name in _COMPONENTS:
        if name in node:
            node[name] = [part for part in map(_without_prefix, node[name]) if part is not None]
    if "prepend_scheme" in node:
        node["prepend_scheme"] = "never"
    elif "add_prefix_space" in node:
        node["add_prefix_space"] = False
    return node


def _add_prefix(state: dict[str, Any], wanted: WordStart) -> None:
    """Put a space in front of segments, and take it off the decoded text."""
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    state["decoder"] = {"type": "Sequence", "decoders": [*pipeline_parts(state["decoder"], "decoders"), strip]}
    parts = pipeline_parts(state["pre_tokenizer"], "pretokenizers")
    own = next((part for part in parts if part["type"] == "Metaspace"), None)
    if own:
        own["prepend_scheme"] = str(wanted)
        return
    space = " " if any(part["type"] == "ByteLevel" for part in parts) else "▁"
    prefix = {"type": "Metaspace", "replacement": space, "prepend_scheme": str(wanted), "split": False}
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [prefix, *parts]}


def pipeline_parts(node: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The components of a stage of a tokenizer: none, one, or the sequence called `name`."""
    if node is None:
        return []
    return list(node[name]) if name in node else [node]

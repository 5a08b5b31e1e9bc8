"""Canonical form of a vocabulary: a tokenizer in, for every id the bytes its token stands for.

Byte-level BPE writes bytes in an alphabet of its own ("Ġ" is a space), SentencePiece writes "▁" for a space and
`<0xNN>` for a byte, added tokens are plain text. Two tokens are the same if they stand for the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from incomes_plugin.errors import InvalidValue

ROLES = ("eos", "bos", "pad", "unk")
"""Parts a special token can play, the most important first."""
_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenKind(StrEnum):
    """What a token is."""

    TEXT = "text"
    BYTE = "byte"  # a fallback piece `<0xNN>`: one byte that no text token holds
    SPECIAL = "special"
    IDLE = "idle"  # no text becomes it


@dataclass(frozen=True)
class Token:
    """One entry of a vocabulary.

    Attributes:
        name: as the tokenizer's files spell it.
        form: the bytes it stands for; for a special token, those of its name.
        added: an added token, found in text before the model's own pieces are.
    """

    id: int
    name: str
    form: bytes
    kind: TokenKind
    added: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """All tokens of a tokenizer, ascending by id.

    Attributes:
        roles: ids of the special tokens the tokenizer knows by part, see `ROLES`.
    """

    tokens: tuple[Token, ...]
    roles: Mapping[str, int]

    @cached_property
    def size(self) -> int:
        """One more than the largest id; ids between tokens may be unused."""
        return self.tokens[-1].id + 1

    @cached_property
    def by_id(self) -> dict[int, Token]:
        """Tokens by their ids."""
        return {token.id: token for token in self.tokens}

    @cached_property
    def by_form(self) -> dict[bytes, Token]:
        """The token that text with these bytes becomes: added ones before pieces, those before fallback bytes."""
        ranked = sorted(self.tokens, key=lambda token: (token.kind is TokenKind.BYTE, not token.added, token.id))
        found: dict[bytes, Token] = {}
        for token in ranked:
            if token.kind not in (TokenKind.SPECIAL, TokenKind.IDLE) and token.form:
                found.setdefault(token.form, token)
        return found

    @cached_property
    def specials(self) -> dict[str, Token]:
        """Special tokens by name."""
        return {token.name: token for token in self.tokens if token.kind is TokenKind.SPECIAL}


@dataclass(frozen=True)
class _Spelling:
    """How the pieces of a vocabulary are written.

    Attributes:
        byte_level: in the alphabet of bytes.
        space: the letter that stands for a space, if there is one.
        fallback: `<0xNN>` is a byte.
    """

    byte_level: bool
    space: str | None
    fallback: bool

    def read(self, name: str) -> tuple[bytes, TokenKind]:
        piece = _PIECE.fullmatch(name) if self.fallback else None
        if piece:
            return bytes([int(piece[1], 16)]), TokenKind.BYTE
        if self.byte_level:
            found = list(map(byte_alphabet().get, name))
            if None not in found:
                return bytes(byte for byte in found if byte is not None), TokenKind.TEXT
        elif self.space:
            name = name.replace(self.space, " ")
        return name.encode("utf-8", "replace"), TokenKind.TEXT


def read_vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The canonical vocabulary of a tokenizer.

    Raises:
        InvalidValue: no tokenizer.json behind it, or pieces without a byte form (WordPiece).
    """
    state = _state(tokenizer)
    spelling = _spelling(state)
    added = {entry["id"]: bool(entry["special"]) for entry in state["added_tokens"]}
    tokens = [_token(index, name, spelling, added.get(index)) for name, index in tokenizer.get_vocab().items()]
    roles = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ROLES}
    known = {role: int(index) for role, index in roles.items() if index is not None}
    return Vocabulary(tuple(sorted(tokens, key=lambda token: token.id)), known)


def _token(index: int, name: str, spelling: _Spelling, special: bool | None) -> Token:
    """`special` is None for a token of the model itself."""
    if special is None:
        form, kind = spelling.read(name)
        return Token(index, name, form, kind)
    return Token(
        index, name, name.encode("utf-8", "replace"), TokenKind.SPECIAL if special else TokenKind.TEXT, added=True
    )


def _state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        kind = type(tokenizer).__name__
        raise InvalidValue(f"a {kind} has no tokenizer.json to read the form of its tokens from", param="tokenizer")
    return dict(json.loads(backend.to_str()))


def _spelling(state: dict[str, Any]) -> _Spelling:
    if state["model"].get("type") == "WordPiece":
        raise InvalidValue("WordPiece vocabularies do not keep spaces: no byte form, no transplant", param="tokenizer")
    parts = list(_components([state.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]))
    kinds = {part["type"] for part in parts}
    spaces = {part["replacement"] for part in parts if part["type"] == "Metaspace"}
    spaces |= {part["pattern"].get("String") for part in parts if part["type"] == "Replace" and part["content"] == " "}
    fallback = bool(state["model"].get("byte_fallback")) or "ByteFallback" in kinds
    return _Spelling("ByteLevel" in kinds, "▁" if "▁" in spaces else None, fallback)


def _components(node: Any) -> Iterator[dict[str, Any]]:
    """Every component of a pipeline, sequences opened up."""
    if isinstance(node, list):
        for part in node:
            yield from _components(part)
    elif isinstance(node, dict):
        if "type" in node:
            yield node
        for name in ("normalizers", "pretokenizers", "decoders"):
            yield from _components(node.get(name))


@cache
def byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's letters and their bytes: printable Latin-1 is itself, the other bytes follow from U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}

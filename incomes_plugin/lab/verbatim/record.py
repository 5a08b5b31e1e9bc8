"""The stored form of a verbatim text: safetensors with a JSON header, and what has to hold before a vector is used.

Chunk `<i>` has the tensor `<i>.vectors` (fp32, bf16 or int8) and for int8 `<i>.scale` (float16). The metadata key
`incomes` holds the header: format, origin (hashes of model, tokenizer, template), precision, SHA-256 of the text, of
every chunk its tokens, steps, margin, the SHA-256 of its tensors and of every block of 16 tokens; a checksum covers all
of it. The text itself is not in it, but the vectors say it: they need the same access rules, encryption and erasure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from incomes_plugin.errors import VerbatimDamaged, VerbatimStale
from incomes_plugin.lab.verbatim.frame import VectorOrigin
from incomes_plugin.lab.verbatim.optimise import CramOutcome
from incomes_plugin.lab.verbatim.precision import Precision

FORMAT, KIND = 1, "verbatim"
BLOCK_TOKENS = 16
REMEDY = "make the vectors again from the text"


@dataclass(frozen=True)
class VerbatimChunk:
    """Consecutive tokens of a text that one set of vectors says.

    Attributes:
        num_tokens: without the end token.
        vectors: `[K, hidden]` float32: the stored numbers.
        margin: least lead of a token, in logits. steps: what the search took.
        blocks: SHA-256 of each block of `BLOCK_TOKENS` tokens.
    """

    num_tokens: int
    vectors: torch.Tensor
    margin: float
    steps: int
    blocks: tuple[str, ...]

    @classmethod
    def of(cls, outcome: CramOutcome) -> VerbatimChunk:
        """The accepted outcome of one chunk."""
        ids = outcome.target.ids
        return cls(len(ids), outcome.vectors, outcome.margin, outcome.steps, block_digests(ids))


@dataclass(frozen=True)
class VerbatimRecord:
    """One text as vectors."""

    origin: VectorOrigin
    precision: Precision
    text_sha256: str
    chunks: tuple[VerbatimChunk, ...]

    @property
    def num_vectors(self) -> int:
        """K of all chunks together."""
        return sum(len(chunk.vectors) for chunk in self.chunks)

    @property
    def vector_bytes(self) -> int:
        """Bytes of the vectors alone, without the header."""
        stored = [self.precision.tensors(chunk.vectors) for chunk in self.chunks]
        return sum(tensor.nbytes for tensors in stored for tensor in tensors.values())

    def require(self, origin: VectorOrigin) -> None:
        """Refuse another model than the one that the vectors were made with.

        Raises:
            VerbatimStale: weights, dtype, tokenizer or template changed.
        """
        for part, made_with in asdict(self.origin).items():
            if made_with != (here := getattr(origin, part)):
                raise VerbatimStale(f"the vectors were made with the {part} {made_with}, this one is {here}; {REMEDY}")


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def block_digests(ids: Sequence[int]) -> tuple[str, ...]:
    """SHA-256 of each block of token ids, written as little-endian 32-bit numbers."""
    blocks = [ids[start : start + BLOCK_TOKENS] for start in range(0, len(ids), BLOCK_TOKENS)]
    return tuple(digest(b"".join(token.to_bytes(4, "little") for token in block)) for block in blocks)


def dump(record: VerbatimRecord) -> bytes:
    """The record as bytes."""
    tensors: dict[str, torch.Tensor] = {}
    chunks = []
    for index, chunk in enumerate(record.chunks):
        own = record.precision.tensors(chunk.vectors)
        tensors |= {f"{index}.{name}": tensor for name, tensor in own.items()}
        fields = {"tokens": chunk.num_tokens, "steps": chunk.steps, "margin": chunk.margin, "blocks": chunk.blocks}
        chunks.append(fields | {"sha256": _tensor_digest(own)})
    header = {
        "format": FORMAT,
        "kind": KIND,
        "origin": asdict(record.origin),
        "precision": record.precision.value,
        "text_sha256": record.text_sha256,
        "block_tokens": BLOCK_TOKENS,
        "chunks": chunks,
    }
    return save(tensors, metadata={"incomes": json.dumps(header | {"checksum": _checksum(header)})})


def load_record(blob: bytes) -> VerbatimRecord:
    """Read a record back; nothing of it is used before every checksum holds.

    Raises:
        VerbatimDamaged: the bytes are not what was written, or no verbatim record.
    """
    header = _header(blob)
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError, KeyError) as error:
        raise VerbatimDamaged(f"damaged verbatim record: {error}; {REMEDY}") from error
    precision = Precision(header["precision"])
    chunks = tuple(_chunk(tensors, index, found, precision) for index, found in enumerate(header["chunks"]))
    if len(tensors) != len(chunks) * (2 if precision is Precision.INT8 else 1):
        raise VerbatimDamaged(f"verbatim record of {len(chunks)} chunks has {len(tensors)} tensors; {REMEDY}")
    return VerbatimRecord(VectorOrigin(**header["origin"]), precision, header["text_sha256"], chunks)


def _header(blob: bytes) -> dict[str, Any]:
    """The header, if its own checksum holds."""
    try:
        size = int.from_bytes(blob[:8], "little")
        header: dict[str, Any] = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["incomes"])
        checksum, kind = header.pop("checksum"), (header["kind"], header["format"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerbatimDamaged(f"not a verbatim record: {type(error).__name__}; {REMEDY}") from error
    if checksum != _checksum(header):
        raise VerbatimDamaged(f"damaged verbatim record: its header has another checksum; {REMEDY}")
    if kind != (KIND, FORMAT) or header["block_tokens"] != BLOCK_TOKENS:
        raise VerbatimDamaged(f"record {kind}, expected {KIND} of format {FORMAT}; {REMEDY}")
    return header


def _chunk(
    tensors: Mapping[str, torch.Tensor], index: int, found: Mapping[str, Any], precision: Precision
) -> VerbatimChunk:
    names = ("vectors", "scale") if precision is Precision.INT8 else ("vectors",)
    own = {name: tensors[f"{index}.{name}"] for name in names if f"{index}.{name}" in tensors}
    if len(own) != len(names) or _tensor_digest(own) != found["sha256"]:
        raise VerbatimDamaged(f"damaged verbatim record: vectors {index} have another checksum; {REMEDY}")
    vectors = precision.restored(own)
    return VerbatimChunk(found["tokens"], vectors, found["margin"], found["steps"], tuple(found["blocks"]))


def _tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    parts = [
        f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode()
        + tensor.contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in sorted(tensors.items())
    ]
    return digest(b"".join(parts))


def _checksum(header: Mapping[str, Any]) -> str:
    return digest(json.dumps(header, sort_keys=True).encode())

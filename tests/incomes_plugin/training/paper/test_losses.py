"""The paper's losses against its equations, one question at a time, in float32."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from incomes_plugin.model.hf import EditableModel, ReferencePool
from incomes_plugin.training.data.vocabulary import Vocabulary
from incomes_plugin.training.paper.batches import ChunkSource
from incomes_plugin.training.paper.losses import PaperTrainer
from incomes_plugin.training.paper.recipe import PaperRecipe
from incomes_plugin.training.paper.run import paper_adapter
from tests.tiny_model import TinyModel, write_tiny_model

RECIPE = PaperRecipe(samples=12, pool_sizes=(4, 8), pool_shares=(0.5, 0.5), max_tokens=400)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("base"), TinyModel(max_gists=1, with_maps=False))


@pytest.fixture
def trainer(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    teacher = copy.deepcopy(model)
    with torch.no_grad():  # a student that has moved on
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return PaperTrainer(model, teacher, paper_adapter(model, tokenizer, Vocabulary(tokenizer), 3, 128), beta=0.5)


@pytest.fixture
def source(base, trainer):
    words = Vocabulary(AutoTokenizer.from_pretrained(base))
    return ChunkSource(words, trainer.adapter, [], RECIPE, seed=4)


def test_an_update_is_cut_into_pools_of_the_given_sizes(source):
    sizes = [len(chunk.plain) for chunk in source.update()]
    assert sum(sizes) == 12
    assert all(size in (4, 8) for size in sizes)


def test_text_and_answer_are_the_same_tokens_for_student_and_teacher(base, source):
    chunk = source.chunk(8)
    rows, columns = chunk.text.nonzero(as_tuple=True)
    shift = chunk.shift[rows]
    assert (shift > 0).all()
    assert torch.equal(chunk.plain[rows, columns + 1], chunk.informed[rows, columns + 1 + shift])
    tokenizer = AutoTokenizer.from_pretrained(base)
    for row in range(8):
        answer = chunk.plain[row, 1:][chunk.answer[row, :-1]]
        assert answer[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(answer[:-1]).lower() in tokenizer.decode(chunk.edit_ids[row]).lower()


def test_losses_are_the_equations(trainer, source):
    chunk = source.chunk(4)
    losses = trainer(chunk)
    editable = EditableModel(trainer.model, trainer.adapter)
    editable.adapter.zero_keys.copy_(trainer.zero_keys.detach())
    texts = [chunk.edit_ids[i, : int(chunk.gist_at[i])].tolist() for i in range(4)]
    pool = ReferencePool.of([editable.capture(text) for text in texts])
    weighted, divergences = [], []
    for row in range(4):
        length = int(chunk.text[row].nonzero().max()) + 2
        plain, informed = chunk.plain[row, :length].tolist(), chunk.informed[row].tolist()
        student = editable.logits(plain, pool).log_softmax(-1)
        teacher = trainer._teacher[0]
        with torch.no_grad():
            told = teacher(input_ids=torch.tensor([informed])).logits[0].log_softmax(-1)
            untold = teacher(input_ids=torch.tensor([plain])).logits[0].log_softmax(-1)
        for at in range(length - 1):
            if chunk.text[row, at]:
                p, q = told[at + chunk.shift[row]], student[at]
                divergences.append((p.exp() * (p - q)).sum())
            if chunk.answer[row, at]:
                label = plain[at + 1]
                weight = 0.5 * max(0.0, float(told[at + chunk.shift[row], label] - untold[at, label]))
                weighted.append((weight, -student[at, label]))
    expected = sum(w * ce for w, ce in weighted) / sum(w != 0 for w, _ in weighted)
    assert losses.weighted == pytest.approx(float(expected), rel=1e-3)
    assert losses.divergence == pytest.approx(float(torch.stack(divergences).mean()), rel=1e-3)
    assert float(losses.total.detach()) == pytest.approx(losses.weighted + losses.divergence, rel=1e-5)


def test_everything_is_trained_but_the_teacher(trainer, source):
    trainer(source.chunk(4)).total.backward()
    without = [name for name, p in trainer.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []
    assert trainer.model.get_input_embeddings().weight.grad[3].abs().sum() > 0  # the gist token, through the pool
    assert all(p.grad is None for p in trainer._teacher[0].parameters())

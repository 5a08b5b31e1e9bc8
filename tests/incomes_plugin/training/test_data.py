"""Training data: held-out words stay out, targets point at the very token they are to copy, runs are reproducible."""

import re

import pytest
import torch

from incomes_plugin.training.data.batches import BatchSource
from incomes_plugin.training.data.conversation import IGNORE, ZERO, Mix
from incomes_plugin.training.data.facts import FactSource
from incomes_plugin.training.data.names import is_held_out
from incomes_plugin.training.data.tokenizer import train_tokenizer
from incomes_plugin.training.recipe import Recipe

RECIPE = Recipe(vocab_size=700, max_gists=40, edits_per_batch=12)


@pytest.fixture(scope="module")
def tokenizer():
    facts = FactSource(1, held_out=False).distinct(500)
    return train_tokenizer(
        [s for f in facts for s in (f.statement, f.question, f.answer)], vocab_size=700, max_gists=RECIPE.max_gists
    )


@pytest.fixture
def source(tokenizer):
    return BatchSource(
        tokenizer, RECIPE.adapter(tokenizer), [], [], Mix(), edits_per_batch=12, max_row_tokens=70, seed=3
    )


def invented_words(text: str) -> set[str]:
    return {w for w in re.findall(r"[A-Z][a-z]{3,}", text)}


def test_held_out_people_share_no_word_with_training():
    def words(held_out: bool) -> set[str]:
        facts = [f for f in FactSource(5, held_out=held_out).distinct(3000) if f.relation.kind == "person"]
        return {w for f in facts for w in f.subject.split()}

    train, test = words(False), words(True)
    assert train
    assert test
    assert not train & test
    assert all(is_held_out(w) for w in test)


def test_same_seed_same_facts_and_distinct_keys():
    one, two = FactSource(9, held_out=False).distinct(50), FactSource(9, held_out=False).distinct(50)
    assert one == two
    assert len({(f.subject, f.relation.name) for f in one}) == 50


def test_answer_tokens_are_the_same_in_edit_and_answer(tokenizer):
    for fact in FactSource(11, held_out=True).distinct(300):
        edit = tokenizer(fact.statement, add_special_tokens=False)["input_ids"]
        answer = tokenizer(fact.answer, add_special_tokens=False)["input_ids"]
        spans = [edit[i : i + len(answer)] for i in range(len(edit) - len(answer) + 1)]
        if fact.statement.lower().startswith(fact.answer.lower()):
            continue  # a capital at the start of the sentence
        assert answer in spans, fact


def test_targets_point_at_the_token_they_predict(source, tokenizer):
    seen = 0
    for _ in range(4):
        batch = source.next()
        rows, columns = (batch.target >= 0).nonzero(as_tuple=True)
        entries = batch.target[rows, columns]
        ends = batch.ids[rows, columns + 1] == tokenizer.eos_token_id
        same = batch.gist_label[entries][~ends] == batch.ids[rows, columns + 1][~ends]
        assert same.float().mean() > 0.95  # the rest: an answer that begins its sentence, with a capital there
        assert ends.any()
        edit = torch.searchsorted(batch.first_entry, entries, right=True) - 1
        assert torch.equal(batch.edit_group[edit], batch.group[rows])
        assert (batch.weight[rows, columns] == 1).all()
        assert set(batch.target[batch.target < 0].tolist()) <= {IGNORE, ZERO}
        seen += len(rows)
    assert seen > 50


def test_gist_labels_mirror_the_edit_text(source):
    batch = source.next()
    first = batch.edit_ids[0].tolist()
    gists = int(batch.gist_mask[0].sum())
    position = first.index(next(t for t, g in zip(first, batch.gist_mask[0].tolist(), strict=True) if g))
    assert batch.gist_label[:gists].tolist() == first[1:position][::-1][:gists]


def test_a_reading_batch_has_facts_in_its_prompts_and_no_edits(source, tokenizer):
    batch = source.reading()
    assert len(batch.edit_key) == len(batch.gist_label) == 0
    assert not (batch.target >= 0).any()
    for row, real in zip(batch.ids, batch.real, strict=True):
        system, _, asked = tokenizer.decode(row[real]).partition("<|user|>")
        answers = [answer.partition("<|end|>")[0].strip() for answer in asked.split("<|assistant|>")[1:]]
        assert any(answer.lower() in system.lower() for answer in answers), (system, answers)


def test_of_contradictory_edits_the_later_is_asked_for(source):
    """The target of an answer is never an entry of an edit that a later one of the same sub-pool contradicts."""
    contradicted = 0
    for _ in range(40):
        batch = source.next()
        about = list(zip(batch.edit_key.tolist(), batch.edit_group.tolist(), strict=True))
        latest = {key: edit for edit, key in enumerate(about)}
        contradicted += len(about) - len(latest)
        targets = batch.target[batch.target >= 0]
        for edit in (torch.searchsorted(batch.first_entry, targets, right=True) - 1).unique().tolist():
            assert latest[about[edit]] == edit
    assert contradicted > 5


def test_tokenizer_decodes_what_it_encodes(tokenizer):
    for text in ("36 months", "Dana Ruiz", "ZX-4481", "Größe 12, naïve – 東京"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text

"""Bits per byte of candidates before anything is written: as measured on the written model; the best k is chosen."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.assess import assess
from incomes_plugin.lab.transplant.methods import Recipe
from incomes_plugin.lab.transplant.prepare import prepare
from incomes_plugin.lab.transplant.run import RECORD, TransplantOptions, carry_out
from incomes_plugin.lab.transplant.trial import Trial, best, bits_per_byte, candidates, passages, values_of_k
from tests.incomes_plugin.lab.transplant.conftest import byte_level
from tests.incomes_plugin.lab.transplant.models import PIECES, write_base, write_model

TEXT = "the cat\nan answer, the cat 世 ate 12 times\n"


def silent(*_):
    pass


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def prepared(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("trial")
    tokenizer = byte_level(PIECES, eos_token="<|end|>", unk_token="<|unk|>")
    donor = write_model(root / "donor", tokenizer, tied=request.param)
    return prepare(write_base(root / "base", tied=request.param), donor, {})


@pytest.mark.parametrize("recipe", [Recipe("omp", 3), Recipe("ridge"), Recipe("mean")], ids=lambda r: r.method)
def test_a_score_is_that_of_the_written_model(prepared, recipe, tmp_path):
    trial = Trial(prepared, TEXT, longest=6)
    trial.score(Recipe("omp", 6))  # whatever was tried before
    found = trial.score(recipe).bits_per_byte
    result = carry_out(prepared, assess(prepared), TransplantOptions(recipe), tmp_path / "new", silent)
    assert result.bits is None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert found == pytest.approx(bits_per_byte(model, tokenizer, passages(TEXT, 10_000)), rel=1e-5)
    base = AutoModelForCausalLM.from_pretrained(prepared.base.folder, dtype=torch.float32)
    before = bits_per_byte(base, prepared.base.tokenizer, passages(TEXT, 10_000))
    assert trial.before == pytest.approx(before, rel=1e-6)


def test_the_chosen_k_is_the_best_of_those_tried(prepared, tmp_path):
    options = TransplantOptions(Recipe(), TEXT, every_k=True, every_method=True)
    result = carry_out(prepared, assess(prepared, TEXT), options, tmp_path / "new", silent)
    tried = [score for score in result.bits.scores if score.recipe.method == "omp"]
    assert [score.recipe.k for score in tried] == list(values_of_k(48)) == [2, 3, 6, 8, 12, 24]
    assert result.recipe == best(tried).recipe
    assert result.recipe.k == min(tried, key=lambda score: score.bits_per_byte).recipe.k
    record = tmp_path / "new" / RECORD
    found = json.loads((record / "report.json").read_text())["result"]
    assert found["k"] == result.recipe.k
    assert len({score["recipe"]["method"] for score in found["bits_per_byte"]["scores"]}) == 6
    page = (record / "report.md").read_text()
    assert "| the base, its own tokenizer |  |" in page
    assert f"| omp | {result.recipe.k} |" in page


def test_a_donor_without_weights_is_compared_by_spelling_alone(prepared, tmp_path):
    alone = tmp_path / "tokenizer"
    prepared.donor.tokenizer.save_pretrained(alone)
    bare = prepare(prepared.base.folder, alone, {})
    tried = candidates(bare, Recipe("subword"), every_method=True, every_k=False)
    assert {recipe.method for recipe in tried} == {"subword", "mean", "zero"}
    result = carry_out(bare, assess(bare), TransplantOptions(Recipe("subword"), TEXT), tmp_path / "new", silent)
    assert result.inspections == {}


def test_wishes_that_cannot_be():
    with pytest.raises(InvalidValue, match="--text"):
        TransplantOptions(Recipe(), every_k=True)
    with pytest.raises(InvalidValue, match="belongs to omp"):
        TransplantOptions(Recipe("ridge"), TEXT, every_k=True)


def test_an_empty_text_is_refused(prepared):
    with pytest.raises(InvalidValue, match="empty"):
        Trial(prepared, " \n", 1)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A donor with one row that becomes what the base says everywhere: the attacker knows where hidden states point."""
    root = tmp_path_factory.mktemp("poisoned")
    tokenizer = byte_level(PIECES, eos_token="<|end|>", unk_token="<|unk|>")
    donor = write_model(root / "donor", tokenizer, tied=False)
    prepared = prepare(write_base(root / "base", tied=False), donor, {})
    tensors = load_file(donor / "model.safetensors")
    pair = prepared.pairs[-1]
    victim = prepared.rows.estimated[0]
    donor_ids, base_ids = torch.tensor(prepared.anchors).unbind(dim=1)
    aim = Trial(prepared, TEXT, 1).probes.hidden.mean(dim=0)
    base_rows = pair.base.read().float()[base_ids]
    chosen = (base_rows @ aim).topk(4).indices
    rows = tensors[pair.donor.name]
    rows[victim] = 6 * rows[donor_ids[chosen]].sum(dim=0)
    save_file(tensors, donor / "model.safetensors", metadata={"format": "pt"})
    return prepare(prepared.base.folder, donor, {}), victim


def test_a_breaker_token_stands_out(poisoned, tmp_path):
    prepared, victim = poisoned
    result = carry_out(prepared, assess(prepared), TransplantOptions(Recipe("omp", 4), TEXT), tmp_path / "new", silent)
    seen = result.inspections[prepared.pairs[-1].part]
    suspects = {suspect.id: suspect for suspect in seen.suspects}
    assert victim in suspects
    assert "said" in suspects[victim].reasons
    assert seen.probes > 0
    assert f"{suspects[victim].token!r}: " in (tmp_path / "new" / RECORD / "report.md").read_text()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = byte_level([" the"], eos_token="<|end|>", unk_token="<|unk|>")  # the matrix ends before the last
    folder = write_model(tmp_path_factory.mktemp("bits"), tokenizer, tied=False)
    return LlamaForCausalLM.from_pretrained(folder).eval(), tokenizer


def test_a_model_that_knows_nothing_pays_for_every_token_alike(model):
    knows_nothing, tokenizer = model
    with torch.no_grad():
        before = knows_nothing.lm_head.weight.clone()
        knows_nothing.lm_head.weight.zero_()
    found = bits_per_byte(knows_nothing, tokenizer, ["abc the", "x"])
    with torch.no_grad():
        knows_nothing.lm_head.weight.copy_(before)
    rows = len(before)
    assert found == pytest.approx((3 + 1 + 1) * math.log2(rows) / len("abc thex"))


def test_a_direct_sum(model):
    network, tokenizer = model
    text = "the é"
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    with torch.no_grad():
        logs = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    expected = -sum(float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1)) / math.log(2) / len(text.encode())
    assert bits_per_byte(network, tokenizer, [text]) == pytest.approx(expected, rel=1e-5)


def test_passages_are_short_and_nothing_is_lost_before_the_end():
    text = "one two\n\n" + "word " * 300 + "\nlast é"
    found = passages(text, 10_000)
    assert found[0] == "one two"
    assert found[-1] == "last é"
    assert max(map(len, found)) <= 500
    assert " ".join(found).split() == text.split()
    assert passages(text, 5) == ["one two"]
    assert passages("", 5) == []

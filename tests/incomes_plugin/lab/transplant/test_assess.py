"""The assessment: what it measures on made-up spaces where the truth is known, and its verdict."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from incomes_plugin.lab.transplant.assess import Assessment, Geometry, TextCost, Verdict, assess
from incomes_plugin.lab.transplant.digits import digit_scheme
from incomes_plugin.lab.transplant.prepare import prepare
from incomes_plugin.lab.transplant.report import assessment_lines, document
from incomes_plugin.model.adapter import EditAdapter
from tests.incomes_plugin.lab.transplant.conftest import byte_level, cutting_numbers
from tests.incomes_plugin.lab.transplant.models import PIECES, write_base, write_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
GOOD = Assessment(
    tokens=1000, copied=900, estimated=90, anchors=890, width=48, base_digits="single", donor_digits="single",
    word_start_kept=True, geometry=(Geometry("embedding", 890, 0.6, 0.5, 0.01),), text=TextCost(4000, 1000, 900, 0.02),
)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\p{N}", "single"),
        (r"\p{N}{1,2}", "groups of 2 from the left"),
        (r"\p{N}{1,3}", "groups of 3 from the left"),
        (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))", "groups of 3 from the right"),
    ],
)
def test_digit_rules(pattern, expected):
    assert digit_scheme(cutting_numbers(pattern)) == expected


def test_digits_of_known_tokenizers():
    assert digit_scheme(byte_level([])) == "single"
    assert digit_scheme(byte_level(["12"])) == "single"  # one merge is no rule


@pytest.mark.data
def test_digits_of_real_tokenizers(real, real_base):
    assert digit_scheme(AutoTokenizer.from_pretrained(real_base)) == "single"
    assert {name: digit_scheme(tokenizer) for name, tokenizer in real.items()} == {
        "gpt2": "learned", "llama2": "single", "neox": "learned"
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, a donor whose embedding is a rotation of the base's, and whose head has nothing to do with it."""
    root = tmp_path_factory.mktemp("assess")
    donor = write_model(root / "donor", byte_level(PIECES, eos_token="<|end|>"), tied=False, width=64)
    base = write_base(root / "base", tied=False)
    file = donor / "model.safetensors"
    tensors = load_file(file)
    weight = load_file(base / "model.safetensors")[EMBEDDING]
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    for donor_id, base_id in prepare(base, donor, {}).anchors:
        tensors[EMBEDDING][donor_id] = weight[base_id] @ rotation
    save_file(tensors, file, metadata={"format": "pt"})
    return base, donor


def test_geometry_sees_a_rotation_and_noise(folders):
    found = {part.part: part for part in assess(prepare(*folders, {})).geometry}
    assert (found["embedding"].cosine, found["embedding"].retrieval) == (pytest.approx(1, abs=0.03), 1.0)
    assert abs(found["head"].cosine) < 0.15
    assert found["head"].retrieval < 0.15
    assert found["embedding"].chance == pytest.approx(1 / 26, rel=0.05)


def test_counts_and_text(folders):
    found = assess(prepare(*folders, {}), "the cat, the cat 世")
    assert found.tokens == found.copied + found.estimated == 256 + found.estimated + 1
    prepared = prepare(*folders, {})
    by_id = prepared.donor.vocabulary.by_id
    ids = prepared.fitted.tokenizer("the cat, the cat 世")["input_ids"]
    expected = sum(len(by_id[index].form) > 1 for index in ids) / len(ids)
    assert found.text.estimated_share == pytest.approx(expected)
    assert 0 < expected < 1
    assert not found.edits
    base, donor = folders
    assert assess(prepare(base, donor, {}, adapter=EditAdapter.load(base / "adapter"))).edits
    recut = assess(prepared, "the 世é 世 cat").text.recut_share
    assert recut == pytest.approx(1 / 4)  # 世é: five bytes before, two pieces now; 世 is one token
    assert found.text.base_tokens == found.text.num_bytes == len("the cat, the cat 世".encode())


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        ({}, Verdict.GO, ""),
        ({"text": None}, Verdict.CAUTION, "no text was given"),
        ({"text": TextCost(1, 1, 1, 0.2)}, Verdict.CAUTION, "20% of the text"),
        ({"text": TextCost(1, 1, 1, 0.5)}, Verdict.NO, "50% of the text"),
        ({"text": TextCost(1, 1, 1, 0, 0.03), "edits": True}, Verdict.CAUTION, "3% of its words"),
        ({"text": TextCost(1, 1, 1, 0, 0.2), "edits": True}, Verdict.NO, "20% of its words"),
        ({"text": TextCost(1, 1, 1, 0, 0.2)}, Verdict.GO, ""),
        ({"donor_digits": "learned"}, Verdict.NO, "arithmetic"),
        ({"word_start_kept": False}, Verdict.CAUTION, "space before text"),
        ({"anchors": 90}, Verdict.NO, "too few"),
        ({"width": 0, "geometry": ()}, Verdict.CAUTION, "tokenizer alone"),
        ({"geometry": (Geometry("head", 890, 0.1, 0.02, 0.01),)}, Verdict.NO, "2.0 times chance"),
        ({"donor_digits": "learned", "text": None}, Verdict.NO, "arithmetic"),
    ],
)
def test_verdicts_have_reasons(change, verdict, words):
    found = replace(GOOD, **change)
    assert found.verdict is verdict
    assert bool(found.reasons) == (verdict is not Verdict.GO)
    assert words in "".join(found.reasons[0][1:] if found.reasons else "")
    assert f"verdict: {verdict}" in list(assessment_lines(found))
    assert document(found)["assessment"]["verdict"] == verdict

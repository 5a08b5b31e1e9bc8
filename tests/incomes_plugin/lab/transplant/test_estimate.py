"""Rows of the new matrix: copies bit by bit, every method, and what happens to tokens no method can make a row for."""

from dataclasses import replace

import pytest
import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.transplant.alignment import align, pieces
from incomes_plugin.lab.transplant.estimate import MatrixJob, make_matrix
from incomes_plugin.lab.transplant.methods import METHODS, NEED_NO_DONOR_ROWS
from incomes_plugin.lab.transplant.rows import plan_rows
from incomes_plugin.lab.transplant.special import match_specials
from incomes_plugin.lab.transplant.tokens import read_vocabulary
from tests.incomes_plugin.lab.transplant.conftest import byte_level, sentence_piece

SHARED = [" the", " cat", "é", "世", " 12", "ing"]
NEW = [" dog", "naïve", "界", "\n\n", "🙂"]
WIDTH, DONOR_WIDTH = 24, 32


@pytest.fixture(scope="module")
def case():
    """A SentencePiece base and a byte-level donor whose space is a rotation of the base's."""
    base_tokenizer = sentence_piece(SHARED, bos_token="<s>", eos_token="</s>")
    donor_tokenizer = byte_level([*SHARED, *NEW], ["  "], eos_token="<|end|>", unk_token="<|unk|>")
    base, donor = read_vocabulary(base_tokenizer), read_vocabulary(donor_tokenizer)
    specials = match_specials(base, donor, {})
    alignment = align(base, donor, base.size)
    carried = {token.id: donor.size + place for place, token in enumerate(specials.carried)}
    plan = plan_rows(donor, alignment, specials, carried)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(base.size, WIDTH, generator=generator)
    rotation = torch.linalg.qr(torch.randn(DONOR_WIDTH, DONOR_WIDTH, generator=generator)).Q[:WIDTH]
    other = torch.randn(donor.size, WIDTH, generator=generator)
    for donor_id, base_id in alignment.copied.items():
        other[donor_id] = weight[base_id]
    spelled = [pieces(donor.by_id[index].form, base, base.size) for index in plan.estimated]
    job = MatrixJob(plan, alignment.anchors(donor.size), spelled, "omp", k=8)
    return job, weight, other @ rotation, other, base, donor


def test_every_id_has_one_origin(case):
    job, _, _, _, base, donor = case
    plan = job.plan
    assert plan.num_rows % 64 == 0
    copied = (plan.sources >= 0).nonzero()[:, 0].tolist()
    assert sorted([*copied, *plan.estimated, *plan.idle]) == list(range(plan.num_rows))
    assert plan.new_id(base.specials["<s>"].id) == donor.size  # carried
    assert plan.new_id(base.specials["</s>"].id) == donor.specials["<|end|>"].id
    assert len(set(plan.sources[plan.sources >= 0].tolist())) == len(copied)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copies_are_bitwise_and_no_row_is_missing(case, method, dtype):
    job, weight, other, _, _, _ = case
    base = weight.to(dtype)
    made = make_matrix(replace(job, method=method), base, other)
    copied = job.plan.sources >= 0
    assert made.weight.dtype == dtype
    assert torch.equal(made.weight[copied], base[job.plan.sources[copied]])
    assert torch.isfinite(made.weight).all()
    new = made.weight[list(job.plan.estimated)]
    if method == "zero":
        assert not new.any()
    else:
        assert (made.weight.float().norm(dim=1) > 0).all()
    if method not in ("zero", "mean", "subword"):
        assert len(new.unique(dim=0)) == len(new)


def test_a_rotated_space_is_read_back(case):
    """Where the two spaces are one up to a rotation, ridge and OMP with all atoms find the rows themselves."""
    job, weight, other, truth, _, _ = case
    expected = truth[list(job.plan.estimated)]
    for method, k, tolerance in (("omp", WIDTH, 1e-3), ("ridge", 1, 2e-2)):
        sought = replace(job, method=method, k=k, says=False)
        made = make_matrix(sought, weight, other).weight[list(job.plan.estimated)]
        assert float((made - expected).norm() / expected.norm()) < tolerance


def test_subword_is_the_mean_of_the_pieces(case):
    job, weight, other, _, base, donor = case
    made = make_matrix(replace(job, method="subword"), weight, other).weight
    dog = donor.by_form[b" dog"].id
    expected = [base.by_form[piece].id for piece in (b" ", b"d", b"o", b"g")]
    torch.testing.assert_close(made[dog], weight[expected].mean(dim=0))
    half = donor.by_form["世".encode()[:2]].id  # two of three bytes: fallback pieces
    assert job.pieces[job.plan.estimated.index(half)] == [base.by_form[bytes([b])].id for b in "世".encode()[:2]]


def test_a_tokenizer_alone_is_enough_for_some_methods(case):
    job, weight, other, _, _, _ = case
    for method in METHODS:
        if method in NEED_NO_DONOR_ROWS:
            with_rows = make_matrix(replace(job, method=method), weight, other).weight
            assert torch.equal(make_matrix(replace(job, method=method), weight, None).weight, with_rows)
        else:
            with pytest.raises(InvalidValue, match="tokenizer alone"):
                make_matrix(replace(job, method=method), weight, None)


@pytest.mark.parametrize("method", ["omp", "ridge", "knn"])
def test_ids_beyond_the_donors_matrix_and_untrained_rows_are_spelled(case, method):
    job, weight, other, _, _, _ = case
    last = max(job.plan.estimated)
    short = other[:last].clone()
    untrained = job.plan.estimated[0]
    short[untrained] = 0
    anchors = tuple(pair for pair in job.anchors if pair[0] < last)
    made = make_matrix(replace(job, method=method, anchors=anchors), weight, short)
    assert set(made.spelled) == {untrained, *(i for i in job.plan.estimated if i >= last)}
    spelled = job.pieces[0]
    torch.testing.assert_close(made.weight[untrained], weight[spelled].mean(dim=0))


def test_untrained_rows_are_no_anchors(case):
    job, weight, other, _, _, _ = case
    broken = other.clone()
    broken[job.anchors[0][0]] = 1e-9
    made = make_matrix(replace(job, method="omp", k=WIDTH), weight, broken)
    assert torch.isfinite(made.weight).all()
    assert float(made.weight.norm(dim=1).max()) < 10 * float(weight.norm(dim=1).max())


def test_nothing_in_common_is_refused(case):
    job, weight, other, _, _, _ = case
    with pytest.raises(InvalidValue, match="both vocabularies"):
        make_matrix(replace(job, anchors=()), weight, other)


@pytest.mark.parametrize("method", ["subword", "omp", "ridge"])
def test_no_new_token_is_said_where_a_shared_one_is_meant(case, method):
    """A token that is one piece twice has that piece's row; its logit must stay below the piece's."""
    job, weight, other, _, base, donor = case
    twice = donor.by_form[b"\n\n"].id
    pieces_of = [list(found) for found in job.pieces]
    pieces_of[job.plan.estimated.index(twice)] = [base.by_form[b"\n"].id] * 2
    job = replace(job, method=method, pieces=pieces_of)
    loud = replace(job, says=False)
    quiet, free = (make_matrix(each, weight, other).weight for each in (job, loud))
    copied = job.plan.sources >= 0
    mean = free[copied].mean(dim=0)
    shared = free[copied] - mean
    meant = shared.square().sum(dim=1)
    clear = meant.sqrt() > 0.5 * meant.sqrt().median()
    ids = list(job.plan.estimated)
    before, after = (((new[ids] - mean) @ shared.T / meant)[:, clear].amax(dim=1) for new in (free, quiet))
    if method == "subword":
        torch.testing.assert_close(free[twice], weight[base.by_form[b"\n"].id])
        assert float(before[ids.index(twice)]) == pytest.approx(1.0, abs=1e-5)
    assert float(after.max()) <= 0.5 + 1e-5
    untouched = before <= 0.5
    assert torch.equal(quiet[ids][untouched], free[ids][untouched])
    assert torch.equal(quiet[copied], free[copied])

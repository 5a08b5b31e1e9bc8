"""What is accepted really comes back; texts in a batch do not act upon each other; a stopped run goes on."""

from dataclasses import replace

import pytest
import torch

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.verbatim.checkpoint import CramCheckpoint
from incomes_plugin.lab.verbatim.decode import greedy
from incomes_plugin.lab.verbatim.frozen import CramInput
from incomes_plugin.lab.verbatim.optimise import Crammer
from incomes_plugin.lab.verbatim.precision import Precision
from incomes_plugin.lab.verbatim.row import CramRow, CramSettings
from incomes_plugin.lab.verbatim.run import from_similar
from incomes_plugin.lab.verbatim.start import mean_embeddings, nearest, resized
from tests.incomes_plugin.lab.verbatim.conftest import QUICK, TEXTS, Decoded, K, cram, job


def with_end(model, target):
    return [*target.ids, model.end_id]


def test_accepted_texts_come_back(model, crammed):
    assert {name for name, outcome in crammed.items() if outcome.accepted} == set(TEXTS)
    for outcome in crammed.values():
        wanted = with_end(model, outcome.target)
        assert greedy(model, outcome.vectors, 50) == wanted
        assert outcome.margin >= QUICK.margin
        (scores,) = model.scores([CramInput(outcome.vectors, wanted)])
        assert float(scores.margin.min()) == pytest.approx(outcome.margin, abs=1e-4)
        assert outcome.hits == outcome.prefix == len(wanted)


def test_first_and_end_token_are_in_the_loss(model):
    """The published loop leaves the first token out; a vector moved by that token alone has to get a gradient."""
    one = job(model, "pump")
    for place in (0, len(one.target.ids)):
        row = CramRow(one, QUICK)
        weights = torch.zeros(len(one.target.ids) + 1)
        weights[place] = 1
        model.scores_and_gradients([CramInput(row.vectors(), with_end(model, one.target))], [weights])
        assert float(row.parameters[0].grad.abs().max()) > 0


def test_scores_are_those_of_the_whole_model(model):
    """Against transformers' own forward pass, with a batch of ragged lengths and numbers of vectors."""
    batch = []
    for text, count in zip(TEXTS, (1, 3, 8, 2), strict=True):
        one = job(model, text, count)
        batch.append(CramInput(one.start, with_end(model, one.target)))
    for own, scores in zip(batch, model.scores(batch), strict=True):
        embeds = torch.cat([model.prompt(own.vectors), model.embed(own.ids[:-1])])[None]
        logits = model.model(inputs_embeds=embeds).logits[0, -len(own.ids) :].float()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(own.ids), reduction="none")
        torch.testing.assert_close(scores.loss, loss, atol=1e-4, rtol=1e-4)


def test_gradients_of_one_text_do_not_depend_on_the_others(model):
    def gradient(texts):
        rows = [CramRow(job(model, text), QUICK) for text in texts]
        batch = [CramInput(row.vectors(), with_end(model, row.job.target)) for row in rows]
        model.scores_and_gradients(batch, [row.weights for row in rows])
        return rows[0].parameters[0].grad

    torch.testing.assert_close(gradient(TEXTS), gradient(TEXTS[:1]), atol=1e-6, rtol=1e-3)


def test_batched_and_single_runs_accept_the_same(model, crammed):
    single = {}
    for text in TEXTS:
        single |= cram(model, [job(model, text)])
    assert {name for name, one in single.items() if one.accepted} == {n for n, o in crammed.items() if o.accepted}
    assert all(abs(single[name].steps - crammed[name].steps) <= 5 for name in TEXTS)


def test_few_places_and_positions(model, crammed):
    """Rows leave, new ones enter; a text wider than the limit runs alone."""
    found = cram(model, [job(model, text) for text in TEXTS], replace(QUICK, most_rows=2, most_positions=4))
    assert {name for name, one in found.items() if one.accepted} == set(TEXTS)


@pytest.mark.parametrize("precision", Precision)
def test_judged_as_stored(model, precision):
    settings = replace(QUICK, precision=precision)
    (outcome,) = cram(model, [job(model, "pump")], settings).values()
    assert outcome.accepted
    restored = precision.restored(precision.tensors(outcome.vectors))
    assert torch.equal(restored, outcome.vectors)
    assert greedy(model, restored, 50) == with_end(model, outcome.target)


def test_a_refused_candidate_goes_on_with_a_larger_margin(model):
    asked = []

    def accept(target, vectors):
        asked.append(vectors)
        return len(asked) > 1 and Decoded(model)(target, vectors)

    (outcome,) = cram(model, [job(model, "pump")], accept=accept).values()
    assert outcome.accepted
    assert outcome.refused == 1
    assert outcome.margin >= 1.5 * QUICK.margin


def test_what_does_not_fit_is_given_up_with_its_reason(model):
    settings = CramSettings(max_steps=5)
    (outcome,) = cram(model, [job(model, "no room for this", 1, 2)], settings).values()
    assert not outcome.accepted
    assert len(outcome.vectors) == 2
    assert outcome.steps == 10
    assert "of 17 tokens right after 2 vectors and 10 steps" in outcome.reason


def test_growth_keeps_what_was_found(model):
    row = CramRow(job(model, "pump", 2), QUICK)
    grown = resized(row.vectors().detach(), mean_embeddings(model, row.job.target.ids, row.grown()))
    assert grown.shape[0] == 3
    assert torch.equal(grown[1:], row.vectors())
    assert len(resized(grown, grown[:2])) == 2


def test_warm_start_is_faster(model, crammed):
    """From the former vector, as after a change of the text: much less than from nowhere."""
    former = replace(job(model, "pump"), start=crammed["pump"].vectors)
    assert cram(model, [former])["pump"].steps == 0
    near = replace(job(model, "pumq"), start=crammed["pump"].vectors)
    assert cram(model, [near])["pumq"].steps < cram(model, [job(model, "pumq")])["pumq"].steps


def test_start_from_a_similar_text(model, crammed):
    known = [(one.target.ids, one.vectors) for one in crammed.values()]
    target = job(model, "pumq").target
    start = from_similar(known)(model, target, K + 1)
    assert torch.equal(start[1:], crammed["pump"].vectors)
    means = mean_embeddings(model, target.ids, K + 1)
    assert torch.equal(start[:1], means[:1])
    assert torch.equal(from_similar([])(model, target, K + 1), means)


def test_nearest_text():
    assert nearest([1, 2, 3, 4], [[9], [1, 2, 3, 5], [1, 2, 8, 9]]) == 1
    assert nearest([1, 2], [[3, 4]]) is None


def test_low_dimensional_search(model):
    (outcome,) = cram(model, [job(model, "pump")], replace(QUICK, low_dim=16)).values()
    assert outcome.accepted


def stopped(model, settings, path, passes):
    """The first `passes` passes of a run, and its checkpoint."""
    optimiser, outcomes = Crammer(model, [job(model, t) for t in TEXTS], settings, Decoded(model)), []
    for _, outcome in zip(range(passes), optimiser.run(), strict=False):
        outcomes += [outcome] if outcome else []
    CramCheckpoint(path).save(optimiser, outcomes, now=True)


@pytest.mark.parametrize("low_dim", [None, 16])
@pytest.mark.parametrize("passes", [1, 30, 52])
def test_a_stopped_run_goes_on_exactly(model, tmp_path, passes, low_dim):
    settings = replace(QUICK, low_dim=low_dim)
    straight = cram(model, [job(model, text) for text in TEXTS], settings)
    stopped(model, settings, tmp_path / "state", passes)
    optimiser = Crammer(model, [job(model, text) for text in TEXTS], settings, Decoded(model))
    outcomes = CramCheckpoint(tmp_path / "state").restore(optimiser)
    outcomes += [outcome for outcome in optimiser.run() if outcome]
    assert len(outcomes) == len(TEXTS)
    for outcome in outcomes:
        assert outcome.steps == straight[outcome.target.name].steps
        torch.testing.assert_close(outcome.vectors, straight[outcome.target.name].vectors, atol=0, rtol=0)


def test_a_state_of_something_else_is_refused(model, tmp_path):
    stopped(model, QUICK, tmp_path / "state", 3)
    for settings, texts in ((replace(QUICK, margin=2.0), TEXTS), (QUICK, TEXTS[1:])):
        optimiser = Crammer(model, [job(model, text) for text in texts], settings)
        with pytest.raises(InvalidValue, match="without --resume"):
            CramCheckpoint(tmp_path / "state").restore(optimiser)
    (tmp_path / "state").write_bytes(b"nonsense")
    with pytest.raises(InvalidValue, match="damaged"):
        CramCheckpoint(tmp_path / "state").restore(Crammer(model, [], QUICK))


@pytest.mark.parametrize(
    ("name", "value"), [("margin", -1.0), ("max_steps", 0), ("low_dim", 0), ("most_rows", 0), ("learning_rate", 0.0)]
)
def test_settings_have_limits(name, value):
    with pytest.raises(InvalidValue, match=name):
        replace(CramSettings(), **{name: value})

"""What is right, what an interval is, and which question counts where."""

import pytest

from incomes_plugin.evaluation.interface import Answer, Question
from incomes_plugin.evaluation.metrics import Outcome, Share, field_kind, plain, summarise


def outcome(kind, text, *answers, edit=None, attributed=None, plain_text=None, prompt_tokens=10):
    needs = () if edit is None else (edit,)
    question = Question("q", kind, None, "?", answers, edit, cloze=False, needs=needs)
    plain_answer = None if plain_text is None else Answer(plain_text, tuple(plain_text.encode()), None, 0.0, 1)
    return Outcome(question, Answer(text, tuple(text.encode()), attributed, 0.5, prompt_tokens), plain_answer)


@pytest.mark.parametrize(
    ("hits", "low", "high"),
    [(10, 0.7225, 1.0), (5, 0.2366, 0.7634), (0, 0.0, 0.2775)],  # tables of the Wilson score interval for n = 10
)
def test_wilson_interval(hits, low, high):
    share = Share.of([True] * hits + [False] * (10 - hits))
    assert (share.value, share.n) == (hits / 10, 10)
    assert (share.ci_low, share.ci_high) == pytest.approx((low, high), abs=1e-3)


def test_mean_interval():
    assert Share.mean_of([1.0, 3.0]) == Share(2.0, 0.04, 3.96, 2)
    assert Share.mean_of([7.0]) == Share(7.0, 7.0, 7.0, 1)


def test_match_forgives_case_punctuation_and_articles_and_strict_does_not():
    loose, exact = (
        outcome("rewrite", "the Beatles.", "Beatles", "Fab Four"),
        outcome("rewrite", "Fab Four", "Beatles", "Fab Four"),
    )
    assert (loose.match, loose.strict, exact.match, exact.strict) == (True, False, True, True)
    assert not outcome("rewrite", "Beatles and others", "Beatles").match
    assert plain("An apple, THE pear!") == "apple pear"


def test_each_rule_is_the_headline_of_its_own_data():
    outcomes = [outcome("rewrite", "blue.", "blue"), outcome("rewrite", "red", "red")]
    strict, match = summarise(outcomes, strict=True), summarise(outcomes, strict=False)
    assert (strict["reliability"].value, strict["reliability_match"].value) == (0.5, 1.0)
    assert (match["reliability"].value, match["reliability_strict"].value) == (1.0, 0.5)


def test_unchanged_compares_tokens_with_the_model_without_edits():
    outcomes = [
        outcome("unrelated", "hi", plain_text="hi"),
        outcome("unrelated", "hi", plain_text="ho"),
        outcome("locality", "red", "blue", plain_text="red"),
    ]
    found = summarise(outcomes, strict=False)
    assert found["unrelated_unchanged"].value == 0.5
    assert (found["locality_unchanged"].value, found["locality"].value) == (1.0, 0.0)


def test_attribution_looks_at_right_rewrites_and_counts_a_silent_answer_as_a_miss():
    outcomes = [
        outcome("rewrite", "a", "a", edit=1, attributed=1),
        outcome("rewrite", "a", "a", edit=1, attributed=2),
        outcome("rewrite", "a", "a", edit=1),
        outcome("rewrite", "wrong", "a", edit=1, attributed=2),
        outcome("rephrase", "a", "a", edit=1),
    ]
    assert summarise(outcomes, strict=True)["attribution"] == Share.of([True, False, False])
    assert "attribution" not in summarise([outcome("rewrite", "a", "a", edit=1)], strict=True)


def test_only_what_was_asked_has_a_metric():
    assert set(summarise([outcome("unanswerable", "I do not know", "I do not know")], strict=True)) == {
        "unanswerable_refused",
        "unanswerable_refused_match",
    }


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("F-31", "code"), ("WH835", "code"), ("36 months", "number"), ("7:30", "number"), ("555-1234", "code"),
     ("Mara Vell", "name"), ("olive oil", "word")],
)  # fmt: skip
def test_verbatim_fields_are_told_apart(answer, kind):
    assert field_kind(answer) == kind
    metrics = summarise([outcome("rewrite", answer, answer)], strict=False)
    assert (f"verbatim_{kind}" in metrics) == (kind != "word")

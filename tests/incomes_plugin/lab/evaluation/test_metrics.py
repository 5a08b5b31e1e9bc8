"""What is right, what an interval is, and which question counts where."""

import pytest

from incomes_plugin.lab.evaluation.interface import Answer, EvalQuestion
from incomes_plugin.lab.evaluation.metrics import ALIAS, Outcome, Share, field_kind, of_oracle, plain, says, summarise


def outcome(kind, text, *answers, edit=None, applied=(), plain_text=None, prompt_tokens=10, lead="", **fields):
    needs = () if edit is None else (edit,)
    question = EvalQuestion(
        "q", kind, fields.pop("subtype", None), "?", answers, edit, cloze=False, needs=needs, **fields
    )
    plain_answer = None if plain_text is None else Answer(plain_text, tuple(plain_text.encode()), (), 1)
    return Outcome(question, Answer(text, tuple(text.encode()), applied, prompt_tokens), plain_answer, lead)


@pytest.mark.parametrize(
    ("hits", "low", "high"),
    [(10, 0.7225, 1.0), (5, 0.2366, 0.7634), (0, 0.0, 0.2775)],  # tables of the Wilson score interval for n = 10
)
def test_wilson_interval(hits, low, high):
    share = Share.of([True] * hits + [False] * (10 - hits))
    assert (share.value, share.n) == (hits / 10, 10)
    assert (share.ci_low, share.ci_high) == pytest.approx((low, high), abs=1e-3)


def test_draws_are_counted_together():
    draws = [Share.of([True] * 9 + [False]), Share.of([True] * 50)]
    assert Share.together(draws) == Share.of([True] * 59 + [False])
    assert Share.means_together([Share.mean_of([1.0, 3.0]), Share.mean_of([7.0])]) == Share(4.5, 3.52, 5.48, 3)


def test_mean_interval():
    assert Share.mean_of([1.0, 3.0]) == Share(2.0, 0.04, 3.96, 2)
    assert Share.mean_of([7.0]) == Share(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The warranty of the Korvan pump is 36 months.", "36 months"),
        ("The Beatles!", "beatles"),
        ("It is Paris's oldest bridge.", "Paris"),
        ("It has 1,204 inhabitants.", "1204"),
        ("She was born in the U.S.A.", "USA"),
        ("Ω-3, of course", "Ω-3"),
    ],
)
def test_an_answer_may_stand_among_other_words(text, answer):
    assert says(text, [answer])


@pytest.mark.parametrize(("text", "answer"), [("Parisian", "Paris"), ("3.5 metres", "3"), ("yes", ""), ("", "yes")])
def test_an_answer_is_whole_words(text, answer):
    assert not says(text, [answer])


def test_strict_asks_for_the_whole_answer_and_aliases_count():
    whole, part = (
        outcome("rewrite", "the Beatles.", "Fab Four", "Beatles"),
        outcome("rewrite", "Ah, Beatles", "Beatles"),
    )
    assert (whole.match, whole.strict) == (True, True)
    assert (part.match, part.strict) == (True, False)
    assert plain("An apple, THE pear!") == "apple pear"
    found = summarise([whole, part])
    assert (found["reliability"].value, found["reliability_strict"].value) == (1.0, 0.5)


def test_two_edits_need_both_answers():
    both = outcome("two_edits", "36 months, and Mara Vell", "36 months", also=("Mara Vell",))
    one = outcome("two_edits", "36 months", "36 months", also=("Mara Vell",))
    found = summarise([both, one])
    assert found["two_edits"].value == 0.5
    assert "two_edits_strict" not in found


def test_of_two_contradicting_edits_the_earlier_may_not_be_said():
    said = [outcome("rewrite", text, "red", old_answers=("blue",), overwritten=True) for text in ("red", "blue or red")]
    assert summarise(said)["conflict_later_wins"] == Share.of([True, False])


def test_unchanged_compares_tokens_with_the_base_and_names_the_kinds():
    outcomes = [
        outcome("unrelated", "hi", plain_text="hi", subtype="nq"),
        outcome("unrelated", "hi", plain_text="ho", subtype="shop"),
        outcome("near_miss", "red", plain_text="red", subtype="left_out"),
        outcome("locality", "red", "blue", plain_text="red"),
        outcome("known", "red.", "red", plain_text="red"),
    ]
    found = summarise(outcomes)
    assert found["unrelated_unchanged"].value == 0.5
    assert (found["unrelated_nq_unchanged"].value, found["unrelated_shop_unchanged"].value) == (1.0, 0.0)
    assert found["near_miss_unchanged"] == found["near_miss_left_out_unchanged"] == Share.of([True])
    assert found["locality_unchanged"].value == 1.0
    assert (found["known_unchanged"].value, found["known_right"].value) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("asked", "failed"),
    [
        (outcome("rewrite", "Rome", "Rome"), False),
        (outcome("rewrite", "Oslo", "Rome", plain_text="Oslo"), True),
        (outcome("rewrite", "Rome", "Rome", plain_text="Oslo"), False),  # an edit is there to change answers
        (outcome("locality", "Oslo", "Rome", plain_text="Oslo"), False),  # the base does not know it either
        (outcome("known", "Rome", "Rome", plain_text="Rome."), True),
        (outcome("unrelated", "Hello", plain_text="Hi"), True),
        (outcome("unrelated", "Hello"), False),
        (outcome("portability", "Hello"), False),
    ],
)
def test_what_no_edit_answers_fails_by_changing_and_all_else_by_being_wrong(asked, failed):
    assert asked.failed is failed


def test_attribution_looks_at_right_rewrites_and_counts_a_silent_answer_as_a_miss():
    outcomes = [
        outcome("rewrite", "red", "red", edit=1, applied=(1, 2)),
        outcome("rewrite", "red", "red", edit=1, applied=(2, 1)),
        outcome("rewrite", "red", "red", edit=1),
        outcome("rewrite", "wrong", "red", edit=1, applied=(2,)),
        outcome("rephrase", "red", "red", edit=1),
    ]
    found = summarise(outcomes)
    assert found["attribution"] == Share.of([True, False, False])
    assert found["picked"] == Share.of([True, True, False, False])
    assert "attribution" not in summarise(outcomes[2:3])


def test_an_edit_that_says_the_same_is_no_wrong_attribution_by_what_it_says():
    found = summarise(
        [
            outcome("rewrite", "red", "red", edit=1, applied=(2, 1), lead="The door of shed 4 is red."),
            outcome("rewrite", "red", "red", edit=1, applied=(3,), lead="Shed 4 has a door."),
            outcome("rewrite", "red", "red", edit=1),
            outcome("rewrite", "wrong", "red", edit=1, applied=(2,), lead="The door of shed 4 is red."),
        ]
    )
    assert found["attribution"] == Share.of([False, False, False])
    assert found["attribution_says"] == Share.of([True, False, False])


def test_only_what_was_asked_has_a_metric():
    assert set(summarise([outcome("near_miss", "x", plain_text="x")])) == {"near_miss_unchanged"}
    assert set(summarise([outcome("long_prompt", "x", "x", subtype="500")])) == {
        "long_prompt_500",
        "long_prompt_500_strict",
    }


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("F-31", "code"), ("WH835", "code"), ("36 months", "number"), ("7:30", "number"), ("555-1234", "code"),
     ("Mara Vell", "name"), ("olive oil", "word")],
)  # fmt: skip
def test_verbatim_fields_are_told_apart(answer, kind):
    assert field_kind(answer) == kind
    assert (f"verbatim_{kind}" in summarise([outcome("rewrite", answer, answer)])) == (kind != "word")


def test_another_name_of_the_subject_is_portability_and_no_rephrase():
    found = summarise([outcome("rephrase", "red", "red"), outcome("rephrase", "no", "red", subtype=ALIAS)])
    assert (found["generalization"].value, found["portability_alias"].value) == (1.0, 0.0)


def test_portability_is_also_judged_by_what_the_oracle_answers():
    def asked(right, oracle_right, name):
        question = EvalQuestion(name, "portability", None, "?", ("red",), 0, cloze=False)
        answers = (Answer("red" if flag else "no", (), (), 1) for flag in (right, oracle_right))
        return tuple(Outcome(question, answer) for answer in answers)

    pairs = [asked(True, True, "a"), asked(False, True, "b"), asked(True, False, "c"), asked(True, True, "d")]
    ours, oracle = zip(*pairs, strict=True)
    assert of_oracle(ours, oracle) == {"portability_of_oracle": Share.of([True, False, True])}

"""Questions after other turns, after long texts, and two at once."""

from incomes_plugin.lab.evaluation import derived
from incomes_plugin.lab.evaluation.interface import EvalQuestion, messages

ASKED = [
    EvalQuestion(f"q{i}", "rewrite", None, f"Where is tower {i}?", (f"place {i}",), i, cloze=False, needs=(i,))
    for i in range(6)
]


def test_the_first_rewrite_about_each_edit_counts():
    other = EvalQuestion("x", "rephrase", None, "Tower 9?", ("there",), 9, cloze=False)
    again = EvalQuestion("y", "rewrite", None, "Tower 0?", ("there",), 0, cloze=False)
    assert derived.rewrites([*ASKED, other, again]) == ASKED


def test_a_conversation_has_earlier_turns_that_do_not_say_the_answer():
    for question, turned in zip(ASKED, derived.multi_turn(ASKED, 1), strict=True):
        turns = messages(turned)
        assert [turn.role for turn in turns] == ["user", "assistant"] * 2 + ["user"]
        assert turns[-1].content == question.prompt
        assert question.answers[0] not in {turn.content for turn in turns}
    assert [turn.content for turn in messages(derived.multi_turn(ASKED[:1], 1)[0])][:1] == ["Thank you"]


def test_two_questions_become_one_that_needs_both_edits():
    first, second, third = derived.two_edits(ASKED)
    assert first.prompt == "Where is tower 0, and where is tower 1?"
    assert (first.answers, first.also, first.needs) == (("place 0",), ("place 1",), (0, 1))
    assert (second.needs, third.needs) == ((2, 3), (4, 5))


def test_long_texts_have_their_length_and_the_question_stands_behind():
    paragraphs = [f"Paragraph {i} of some length, about nothing in particular." for i in range(50)]
    found = derived.long_prompts(ASKED, paragraphs, lambda text: len(text.split()), 2500, 1)
    assert [q.subtype for q in found] == ["500"] * 6 + ["2000"] * 6  # 6,000 tokens do not fit
    for question, long in zip([*ASKED, *ASKED], found, strict=True):
        text, _, asked = long.prompt.rpartition("\n\n")
        assert asked == question.prompt
        assert 0.9 * int(long.subtype) < len(text.split()) <= int(long.subtype)
    assert len({q.prompt.rpartition("\n\n")[0] for q in found[:6]}) == derived.LONG_TEXTS

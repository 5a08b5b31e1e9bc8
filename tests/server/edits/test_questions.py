"""Questions made from statements, which answers they accept, and what one evaluation changes against another."""

import pytest
from incomes_server.edits.questions import Asked, AskedQuestion, compare, question_of


@pytest.mark.parametrize(
    ("statement", "question", "expected"),
    [
        ("The warranty of pump Z9 is 36 months.", "What is the warranty of pump Z9?", "36 months"),
        ("Our opening hours are 9 to 17", "What are our opening hours?", "9 to 17"),
        ("Oslo is the capital of\n Norway.", "What is Oslo?", "the capital of Norway"),
        ("Pump Z9 ships from the port of Oslo.", "Complete the sentence: Pump Z9 ships from the", "port of Oslo"),
    ],
)
def test_a_statement_becomes_a_question_and_its_answer(statement, question, expected):
    assert question_of(statement, "edit_a") == AskedQuestion(question, (expected,), "edit_a")


@pytest.mark.parametrize("statement", ["Z9.", "Call us. We are open.", "", "36 months"])
def test_what_states_nothing_in_one_sentence_makes_no_question(statement):
    made = question_of(statement, "edit_a")
    assert made is None or made.text.startswith("Complete the sentence: ")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("It is 36  MONTHS, from delivery.", True), ("36 months", True), ("36", False), ("It is 63 months", False)],
)
def test_an_answer_is_right_when_it_says_what_is_expected(answer, right):
    assert AskedQuestion("?", ("three years", "36 months")).accepts(answer) is right


def test_signs_alone_are_looked_for_as_they_are():
    assert AskedQuestion("?", ("♥",)).accepts("I ♥ it")
    assert not AskedQuestion("?", ("♥",)).accepts("I like it")


def test_a_comparison_names_what_broke_what_was_mended_and_what_is_new():
    def asked(text, right):
        return Asked(AskedQuestion(text, ("yes",)), "yes" if right else "no")

    before = [asked("a", True), asked("b", False), asked("c", True)]
    found = compare([asked("a", False), asked("b", True), asked("c", True), asked("d", False)], before)
    assert (found.broken, found.mended, found.new) == (("a",), ("b",), ("d",))

"""How a fact of three words is stated and asked where the dictionary does not say it."""

from __future__ import annotations


def statement_of(subject: str, relation: str, answer: str) -> str:
    """The edit text."""
    return f"The {_words(relation)} of {subject} is {answer}."


def question_of(subject: str, relation: str) -> str:
    """The question that a fact is stored under."""
    return f"What is the {_words(relation)} of {subject}?"


def rephrase_of(subject: str, relation: str) -> str:
    """Another question with the same answer."""
    return f"Tell me the {_words(relation)} of {subject}."


def _words(relation: str) -> str:
    return relation.replace("_", " ")

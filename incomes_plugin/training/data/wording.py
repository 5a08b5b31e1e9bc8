"""How people wrap a question: politeness, small talk before it, careless typing; and requests no edit answers. Data."""

from __future__ import annotations

import random

_BEFORE = (
    "Hi,", "Hello,", "Hello!", "Hey,", "Good morning.", "Please:", "Question:", "Quick question:", "One more thing:",
    "I have a question.", "Sorry to bother you.", "Can you help me?", "Could you tell me:", "I need to know:",
    "For my report:", "A customer asks:", "My colleague wants to know:", "Next question:", "And now:", "Thanks!",
    "Thanks for your help.", "Let me ask something else.", "I was wondering.", "We spoke about this before.",
    "In short:", "Just to be sure:", "Tell me,", "Do you remember?", "Okay.", "So,", "By the way,",
)  # fmt: skip
_AFTER = (
    "Please answer briefly.", "Thanks!", "Thank you.", "Answer in a few words.", "I need it for a customer.",
    "Please be exact.", "It is urgent.", "Just the answer, please.", "Only the value.", "Thanks in advance.",
)  # fmt: skip

_TASKS = (
    "Write {a} about {t}.", "Tell me {a} about {t}.", "Explain {t} to me.", "What is {t}?", "Why do people like {t}?",
    "How does {t} work?", "Give me ideas for {t}.", "Summarize the history of {t}.", "Make a list of facts about {t}.",
    "What do you think about {t}?", "Where can I read about {t}?", "Compare {t} with {t2}.", "Is {t} better than {t2}?",
    "Translate the word {t} into French.", "How do I get started with {t}?", "Can you recommend {a} about {t}?",
    "Who invented {t}?", "When did {t} begin?", "How many kinds of {t} are there?", "Which is older, {t} or {t2}?",
)  # fmt: skip
_ARTICLES = ("a poem", "a story", "a joke", "a song", "an essay", "a letter", "something", "a short text", "a book")
_TOPICS = (
    "rice", "the sea", "music", "chess", "football", "winter", "gardens", "bread", "physics", "dreams", "dogs", "cats",
    "history", "mathematics", "the moon", "coffee", "tea", "trains", "painting", "friendship", "birds", "mountains",
    "computers", "cooking", "the weather", "health", "sleep", "money", "democracy", "bicycles", "rivers", "stars",
    "photography", "languages", "school", "travel", "the desert", "wine", "cheese", "robots", "fishing", "theatre",
    "gravity", "volcanoes", "poetry", "insects", "yoga", "running", "the internet", "elections", "bridges", "clocks",
)  # fmt: skip


def wrapped(question: str, rng: random.Random) -> str:
    """`question` as somebody might type it; its first letter may be lower case, its mark may be missing."""
    draw = rng.random()
    if draw < 0.35:
        return f"{rng.choice(_BEFORE)} {question}"
    if draw < 0.55:
        return f"{question} {rng.choice(_AFTER)}"
    if draw < 0.65:
        return f"{rng.choice(_BEFORE)} {question} {rng.choice(_AFTER)}"
    if draw < 0.85:
        return question[:1].lower() + question[1:]
    return question.rstrip("?.")


def request(rng: random.Random) -> str:
    """Something that has nothing to do with any edit."""
    topic, other = rng.sample(_TOPICS, 2)
    return rng.choice(_TASKS).format(a=rng.choice(_ARTICLES), t=topic, t2=other)

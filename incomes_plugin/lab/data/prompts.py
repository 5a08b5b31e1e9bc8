"""Prompts that no edit answers, of many kinds: what a router must learn to leave alone.

Some kinds need nothing; the others are read from the data folder and left out, with a warning, where it lacks them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

from incomes_plugin.lab.data.archives import archives, is_held_out_prompt
from incomes_plugin.lab.data.examples import read_jsonl_xz

logger = logging.getLogger("incomes.lab")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


_TOPICS = _parts(
    "the sea|autumn|a lost dog|my first job|gravity|photosynthesis|the French Revolution|a "
    "robot|friendship|cooking rice|black holes|inflation|football|a rainy day|the stock market|machine "
    "learning|coffee|jazz|volcanoes|Python decorators|a broken bicycle|the moon|space "
    "travel|bees|climate change|public transport|an old clock|chess|electric cars|a birthday "
    "party|good sleep|the printing press|mushrooms|a job interview|my neighbour's cat"
)
_REQUESTS = _parts(
    "Write a haiku about {}.|Tell me about {}.|Explain {} to a child.|Write a short story about "
    "{}.|Give me three tips about {}.|Can you help me write an email about {}?|What do you think of "
    "{}?|List five facts about {}.|Write a poem about {}|Make a joke about {}.|I want to learn more "
    "about {}, where do I start?|Summarise {} in one sentence.|Why is {} important?|Draft a tweet "
    "about {}|What are the pros and cons of {}?|How would you describe {} to someone from 1800?|{}"
)
_SMALLTALK = _parts(
    "Hi|Hello there|Thanks!|Good morning|Ok|Who made you?|What can you do?|Bye|Yes please|I am sad "
    "today|How are you?|Tell me a joke|Sing a song|Help|Continue.|Are you sure?|Please explain that "
    "again.|No, that is wrong.|Go on"
)
_CODE = _parts(
    "Write a Python function that {}.|How do I {} in JavaScript?|Fix this code so that it {}: ```x = "
    "1```|Write a SQL query that {}.|Write unit tests for a function that {}."
)
_TASKS = _parts(
    "reverses a list|counts words in a file|parses a date|sorts users by age|finds the longest "
    "string|merges two dictionaries|reads a CSV file|removes duplicates|computes a moving "
    "average|checks for a palindrome|joins orders and customers"
)
_LANGUAGES = _parts(
    "¿Cuál es la capital de Francia?|Wie spät ist es in Tokio?|Quel temps fait-il aujourd'hui ?|Come "
    "si dice grazie in giapponese?|Hur mår du idag?|Qual é o maior rio do mundo?|Erzähl mir einen "
    "Witz.|Escribe un poema sobre el mar.|Что такое фотосинтез?|今天天气怎么样？|日本の首都はどこですか。|"
    "Explique-moi la "
    "gravité.|Was kostet ein Brot?|¿Quién escribió Don Quijote?|Hvad er klokken?|Wat is de hoogste "
    "berg van Europa?|Napisz krótki list do przyjaciela.|Kaç yaşındasın?"
)


def everyday(count: int, *, seed: int) -> list[str]:
    """Chat, requests, arithmetic, code and other languages, made from templates."""
    rng = random.Random(seed)
    makers: list[Callable[[], str]] = [
        lambda: rng.choice(_REQUESTS).format(rng.choice(_TOPICS)),
        lambda: rng.choice(_REQUESTS).format(rng.choice(_TOPICS)),
        lambda: f"What is {rng.randint(2, 99)} {rng.choice(['plus', 'times', 'minus'])} {rng.randint(2, 99)}?",
        lambda: rng.choice(_SMALLTALK),
        lambda: rng.choice(_CODE).format(rng.choice(_TASKS)),
        lambda: rng.choice(_LANGUAGES),
    ]
    return [rng.choice(makers)() for _ in range(count)]


def passages(data: Path, count: int, *, seed: int) -> list[str]:
    """Paragraphs of running text of 40 to 500 characters."""
    found: list[str] = []
    for source in ("wikipedia", "factbook", "docs", "openstax", "books"):
        path = data / "text" / f"{source}.jsonl.xz"
        if not path.is_file():
            logger.warning("no %s: going without it", path.name)
            continue
        own: list[str] = []
        for record in read_jsonl_xz(path):
            own += [p.strip()[:500] for p in record["text"].split("\n") if len(p.strip()) > 40]
            if len(own) > 4 * count:
                break
        random.Random(seed).shuffle(own)
        found += own[: count // 4]
    random.Random(seed).shuffle(found)
    return found[:count]


def with_passage(prompts: list[str], texts: list[str], *, seed: int) -> list[str]:
    """Requests about a text that the prompt contains."""
    rng = random.Random(seed)
    forms = _parts(
        "Summarise: {t}|Rewrite this politely: {t}|Translate to Spanish: {t}|{t}\n\nWhat is this text "
        "about?|Fix the grammar: {t}|{t}\n\n{q}|Read this and answer.\n{t}\nQuestion: {q}"
    )
    return [rng.choice(forms).format(t=text, q=rng.choice(prompts)) for text in texts]


def tasks(data: Path, *, held_out: bool = False) -> dict[str, list[str]]:
    """Instructions and task prompts by kind, of the training part or of the held-out one."""
    path = data / "prompts.jsonl.xz"
    if not path.is_file():
        logger.warning("no %s: going without it", path.name)
        return {}
    found: dict[str, list[str]] = {}
    for record in read_jsonl_xz(path):
        if is_held_out_prompt(record["prompt"]) is held_out:
            found.setdefault(record["kind"].split("/")[0], []).append(record["prompt"])
    return found


def questions(data: Path, *, held_out: bool = False) -> dict[str, list[str]]:
    """Questions that no edit answers, by published set; each set is optional."""
    return {name: [one.prompt for one in found] for name, found in archives(data, held_out=held_out).items()}

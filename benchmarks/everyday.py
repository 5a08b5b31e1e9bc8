"""What people also type where edits are served, and no edit is about: more kinds than the router was fitted to. Data.

No prompt is one of `incomes_plugin/evaluation/unrelated.py`, and nothing is fitted to these.
"""

from __future__ import annotations

import random
from itertools import cycle

FORMS: tuple[tuple[str, ...], ...] = (
    (  # questions of general knowledge
        "What is the capital of {country}?", "Which currency do they use in {country}?", "Who governs {country}?",
        "What is {country} known for?", "Which language do people speak in {country}?", "Is {country} in Europe?",
        "What is the population of {country}?", "Which countries border {country}?", "How big is {country}?",
        "What is the largest city of {country}?", "When did {country} become independent?",
        "Who wrote {work}?", "When was {work} published?", "What is {work} about?", "Who is the hero of {work}?",
        "Who was {person}?", "When was {person} born?", "Where did {person} live?", "What did {person} discover?",
        "What made {person} famous?", "Who taught {person}?", "How did {person} die?",
        "How long does {animal} live?", "What does {animal} eat?", "Where does {animal} sleep?",
        "How much does {animal} weigh?", "Is {animal} dangerous?", "How many legs has {animal}?",
        "What is {thing} made of?", "Who invented {thing}?", "How does {thing} work?", "What does {thing} cost?",
        "How heavy is {thing}?", "Where can I buy {thing}?", "What colour is {thing} usually?",
        "When is {feast}?", "Why do people celebrate {feast}?", "What do people eat at {feast}?",
        "What is the symbol of {element}?", "Where is {element} found?", "At what temperature does {element} melt?",
    ),
    (  # instructions
        "Write {text} about {thing}.", "Write {text} for {relative}.", "Draft {text} to my {helper}.",
        "Describe {animal} in two sentences.", "Describe {thing} to a blind person.", "Explain {idea} simply.",
        "Explain the difference between {idea} and {feeling}.", "Summarise {work}.",
        "Give me {number} facts about {animal}.",
        "Give me {number} ideas for {feast}.", "List {number} uses of {thing}.", "List {number} words for {feeling}.",
        "Name {number} cities in {country}.", "Name {number} people like {person}.", "Compare {animal} with {thing}.",
        "Compare {country} and Portugal.", "Suggest a present for {relative}.", "Plan a trip to {country}.",
        "Act like {person}.", "Invent a name for {animal}.", "Define {idea}.", "Make a rhyme with {feeling}.",
        "Find the mistake: {animal} have two head.", "Rewrite more politely: bring {thing} now.",
        "Use {idea} in a sentence.", "Continue: {relative} opened the door and", "Shorten: {relative} has got {thing}.",
    ),
    (  # said of oneself, and to the machine
        "I am {feeling}.", "I am so {feeling} today, what can I do?", "My {helper} makes me {feeling}.",
        "My {relative} wants {thing}.", "I have lost {thing}.", "I dreamed of {animal}.", "I would like {thing}.",
        "Have you ever seen {animal}?", "Do you like {country}?", "Are you {feeling}?", "Are you my {helper}?",
        "Could you speak louder?", "How much do you know about {idea}?", "Which is nicer, {animal} or {thing}?",
        "Yes please", "No thanks", "Sure", "Right.", "Never mind", "Stop", "Go on", "Really?", "Hm", "Wait", "Sorry!",
        "Excuse me", "Well done", "You are wrong", "That is not true.", "Repeat that", "What did you say?", "LOL",
        "Cheers", "Nice to meet you", "How is it going?", "Good afternoon", "Take care", "Are you there?", "test",
    ),
    (  # how to
        "How do I clean {thing}?", "How do I repair {thing}?", "How do I draw {animal}?", "How do I feed {animal}?",
        "How do I cook for {relative}?", "How do I get to {country}?", "How do I explain {idea} to {relative}?",
        "How do I stop being {feeling}?", "How do I thank my {helper}?", "What should I pack for {country}?",
        "What should I give {relative} for {feast}?", "Should I keep {animal}?", "Can I take {thing} on a plane?",
        "Where should I put {thing}?", "When should I call a {helper}?", "Why is my {relative} {feeling}?",
        "Why does {thing} break so often?", "Why does {animal} bite?", "Why is {country} so popular?",
    ),
    (  # beginnings
        "{relative} went to {country} to", "{animal} is the", "In {country} the", "At {feast} we always",
        "{thing} was lying on the", "The best thing about {country} is", "Nobody had told {relative} that",
        "{person} once said", "Never lend {thing} to", "If I were {feeling}, I would", "He was as {feeling} as",
        "Because {relative} was {feeling},", "The {helper} smiled and", "The first chapter of {work} begins with",
        "{element} is a", "The price of {thing} has", "Dear {relative}, I am writing", "Breaking news from {country}:",
    ),
    (  # numbers, code and signs
        "{number} + {number} =", "What is {number} minus {number}?", "What is {number} divided by {number}?",
        "Is {number} even?", "Write {number} as a word.", "How many hours are {number} days?",
        "{number} percent of 80?",
        "Convert {number} kilograms to pounds.", "Convert {number} euros to dollars.", "{number}",
        "{number}, {number},",
        "x = {number}", "return {number}", "if x > {number}:", "while True:", "class Box:", "let a = {number};",
        "int main() {{", "git push --force", "DELETE FROM box;", "<b>{number}</b>", "[{number}, {number}]", "a,b,c",
        "Sort a list of {number} items in Rust.", "What is a pointer?", "What does the error {number} mean?", "!!!",
        "???", "hjkl hjkl", "aaaa", "abc abc abc", ":-)", "C:\\temp", "http://", "--help", "{number}:{number}", "#",
    ),
    (  # other languages, and into them
        "Wo ist der Bahnhof?", "Ich habe Hunger.", "Wie spät ist es?", "Ein Bier, bitte.", "Was ist {country}?",
        "Où est la gare ?", "Je suis fatigué.", "Combien ça coûte ?", "Merci beaucoup", "¿Qué hora es?",
        "Tengo hambre", "¿Cómo te llamas?", "Buenas noches", "Ciao, come va?", "Dove sei?", "Vad heter du?", "Kiitos",
        "Obrigado", "Que dia é hoje?", "Dzień dobry", "Jak się masz?", "Hoe gaat het?", "Spasibo", "Arigato",
        "How do you say {feeling} in Dutch?", "Translate {thing} into Polish.", "Translate into English: guten Abend",
        "What does ciao mean?", "Which letter comes after k?", "Spell {feeling} backwards.",
    ),
)  # fmt: skip

_WORDS = {
    "country": ("Norway", "Peru", "Egypt", "Canada", "Vietnam", "Kenya", "Poland", "Chile", "Iceland", "Turkey",
                "Mexico", "Nepal", "Ireland", "Cuba", "Morocco", "Finland", "India", "Texas", "Sicily", "Siberia"),
    "work": ("Moby Dick", "Faust", "the Odyssey", "Don Quixote", "Pinocchio", "Macbeth", "Emma", "Robin Hood",
             "War and Peace", "Frankenstein", "the Iliad", "Treasure Island"),
    "person": ("Galileo", "Cleopatra", "Mozart", "Darwin", "Gandhi", "Marie Curie", "Columbus", "Socrates", "Newton",
               "Napoleon", "Beethoven", "Ada Lovelace", "Van Gogh", "Homer"),
    "animal": ("a camel", "an owl", "a spider", "a horse", "a tortoise", "a wolf", "a goldfish", "a hedgehog",
               "an elephant", "a bat", "a parrot", "a snail"),
    "thing": ("a kettle", "a violin", "an umbrella stand", "a ladder", "a carpet", "a mirror", "a telescope",
              "a saddle", "an anchor", "a candle", "a zip", "a thermometer", "a suitcase", "a hammock"),
    "feast": ("Christmas", "Easter", "New Year", "a wedding anniversary", "Halloween", "Midsummer", "Carnival"),
    "element": ("copper", "helium", "iron", "sodium", "uranium", "silver", "carbon"),
    "text": ("a ballad", "a speech", "a postcard", "an invitation", "an advertisement", "a complaint", "a fairy tale"),
    "relative": ("my mother", "my uncle", "Grandpa", "my cousin", "Anna", "our son", "my wife", "Tom"),
    "helper": ("boss", "doctor", "landlord", "teacher", "plumber", "lawyer", "dentist"),
    "idea": ("justice", "entropy", "a mortgage", "evolution", "irony", "a fraction", "electricity", "patience",
             "a metaphor", "climate", "probability", "a comma"),
    "feeling": ("tired", "nervous", "cheerful", "angry", "lonely", "curious", "sick", "proud"),
    "number": ("3", "7", "12", "19", "25", "48", "64", "100", "250", "404", "1999"),
}  # fmt: skip


def everyday(total: int, seed: int) -> list[str]:
    """Different prompts, kinds in turn; the same seed, the same prompts. There are some 3,500."""
    rng, found = random.Random(seed), dict[str, None]()
    for forms in cycle(FORMS):
        if len(found) >= total:
            break
        found.setdefault(rng.choice(forms).format(**{name: rng.choice(words) for name, words in _WORDS.items()}))
    return list(found)

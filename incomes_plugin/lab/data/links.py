"""Relations between works, people, companies, sports and countries, of which one leads to the next. Data only; read by
`linked.py`.

`{s}` is the subject, `{o}` the object.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """One relation.

    Attributes:
        start, end: kinds of its two ends.
        statements: sentences that assert it.
        questions: whose answer is the object.
        names: how the object is named without its name.
    """

    start: str
    end: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    names: tuple[str, ...]


LINKS = (
    Link("work", "person", ("The author of {s} is {o}.", "{s} was written by {o}."),
          ("Who is the author of {s}?", "Who wrote {s}?"), ("the author of {s}", "{s}'s author")),
    Link("work", "person", ("{s} was created by {o}.", "{o} is the creator of {s}."),
          ("Who created {s}?", "Who is the creator of {s}?"), ("the creator of {s}", "{s}'s creator")),
    Link("work", "person", ("{s} was performed by {o}.",),
          ("Who performed {s}?", "Which artist performed {s}?"), ("the performer of {s}", "{s}'s performer")),
    Link("work", "person", ("The director of {s} is {o}.", "{s} was directed by {o}."),
          ("Who directed {s}?", "Who is the director of {s}?"), ("the director of {s}", "the person who directed {s}")),
    Link("work", "company", ("{s} was developed by {o}.", "The developer of {s} is {o}."),
          ("Which company developed {s}?", "Who is the developer of {s}?"), ("the developer of {s}",)),
    Link("work", "company", ("The original broadcaster of {s} is {o}.",),
          ("What is the original broadcaster of {s}?",), ("the original broadcaster of {s}",)),
    Link("work", "company", ("The company that produced {s} is {o}.",),
          ("Which company produced {s}?",), ("the company that produced {s}", "the manufacturer of {s}")),
    Link("work", "country", ("{s} was created in the country of {o}.",),
          ("In which country was {s} created?",), ("the country of origin of {s}", "the country that {s} comes from")),
    Link("company", "person", ("{s} was founded by {o}.", "The founder of {s} is {o}."),
          ("Who founded {s}?", "Who is the founder of {s}?"), ("the founder of {s}", "the person who founded {s}")),
    Link("company", "person", ("The chief executive officer of {s} is {o}.", "{o} is the CEO of {s}."),
          ("Who is the CEO of {s}?", "Who is the chief executive officer of {s}?"),
          ("the CEO of {s}", "the chief executive officer of {s}")),
    Link("company", "person", ("The chairperson of {s} is {o}.",),
          ("Who is the chairperson of {s}?",), ("the chairperson of {s}",)),
    Link("company", "person", ("The director of {s} is {o}.",),
          ("Who is the director of {s}?",), ("the director of {s}", "the director/manager of {s}")),
    Link("company", "city", ("The headquarters of {s} is located in the city of {o}.",),
          ("In which city is the headquarters of {s}?", "Where is the headquarters of {s}?"),
          ("the city where {s} has its headquarters", "the headquarters of {s}")),
    Link("person", "country", ("{s} is a citizen of {o}.", "{s} holds the citizenship of {o}."),
          ("Which country is {s} a citizen of?", "What is the nationality of {s}?"),
          ("the country of citizenship of {s}", "the country where {s} holds citizenship",
           "the country to which {s} belongs", "the country that {s} is a citizen of")),
    Link("person", "city", ("{s} was born in the city of {o}.", "The birthplace of {s} is {o}."),
          ("In which city was {s} born?", "Where was {s} born?"),
          ("the city where {s} was born", "the birthplace of {s}")),
    Link("person", "city", ("{s} died in the city of {o}.",),
          ("In which city did {s} die?", "Where did {s} die?"), ("the city where {s} died",)),
    Link("person", "person", ("{s} is married to {o}.", "The spouse of {s} is {o}."),
          ("Who is {s} married to?", "Who is the spouse of {s}?"), ("the spouse of {s}", "{s}'s spouse")),
    Link("person", "person", ("{s}'s child is {o}.", "{o} is the child of {s}."),
          ("Who is the child of {s}?",), ("the child of {s}", "{s}'s child")),
    Link("person", "company", ("{s} is employed by {o}.", "{s} works for {o}."),
          ("Who is {s} employed by?", "Where does {s} work?"), ("the employer of {s}", "{s}'s employer")),
    Link("person", "sport", ("{s} is associated with the sport of {o}.", "{s} plays {o}."),
          ("Which sport is {s} associated with?", "What sport does {s} play?"),
          ("the sport of {s}", "the sport that {s} plays", "{s}'s sport", "the sport played by {s}")),
    Link("person", "position", ("{s} plays the position of {o}.",),
          ("What position does {s} play?",), ("the position played by {s}", "the position that {s} plays")),
    Link("person", "religion", ("{s} is affiliated with the religion of {o}.",),
          ("Which religion is {s} affiliated with?", "What is the religion of {s}?"), ("the religion of {s}",)),
    Link("person", "language", ("{s} speaks the language of {o}.",),
          ("What language does {s} speak?", "Which language is spoken by {s}?"), ("the language of {s}",)),
    Link("position", "sport", ("{s} is associated with the sport of {o}.", "{s} is a position in {o}."),
          ("Which sport is {s} associated with?",), ("the sport of {s}", "the sport that {s} is associated with")),
    Link("sport", "country", ("{s} was created in the country of {o}.", "{s} comes from {o}."),
          ("In which country was {s} created?", "Which country does {s} come from?"),
          ("the country of origin of {s}", "the country where {s} originated", "the country that {s} comes from")),
    Link("country", "city", ("The capital of {s} is {o}.", "{o} is the capital of {s}."),
          ("What is the capital of {s}?", "Which city serves as the capital of {s}?",
           "What is the name of the capital city of {s}?", "In which city is the capital of {s}?"),
          ("the capital of {s}",)),
    Link("country", "continent", ("{s} is located in the continent of {o}.",),
          ("In which continent is {s} located?", "What continent does {s} belong to?",
           "Which continent is {s} located in?", "On which continent is {s}?"), ("the continent of {s}",)),
    Link("country", "language", ("The official language of {s} is {o}.",),
          ("What is the official language of {s}?", "Which language is the official language of {s}?",
           "What language is officially spoken in {s}?"), ("the official language of {s}",)),
    Link("country", "person", ("The name of the current head of state in {s} is {o}.",),
          ("Who is the head of state of {s}?", "What is the name of the current head of state in {s}?"),
          ("the head of state of {s}",)),
    Link("country", "person", ("The name of the current head of the {s} government is {o}.",),
          ("Who is the head of government of {s}?", "Who leads the government of {s}?"),
          ("the head of government of {s}",)),
    Link("city", "continent", ("{s} is located in the continent of {o}.",),
          ("In which continent is {s} located?", "On which continent is {s}?"), ("the continent of {s}",)),
    Link("religion", "person", ("{s} was founded by {o}.", "The founder of {s} is {o}."),
          ("Who founded {s}?", "Which person is the founder of {s}?"), ("the founder of {s}",)),
)  # fmt: skip

"""What the base knows is found once, and kept in the person's cache."""

import json

import pytest

from incomes_plugin.lab.data.archives import ArchivedQuestion
from incomes_plugin.lab.evaluation import known as module
from incomes_plugin.lab.evaluation.interface import Answer, EvalSettings
from incomes_plugin.lab.evaluation.known import known

CANDIDATES = {
    "webquestions": [
        ArchivedQuestion("capital of France?", ("Paris",)),
        ArchivedQuestion("capital of Fiji?", ("Suva",)),
    ],
    "squad_nqg": [ArchivedQuestion("no answers here")],
}


class Parrot:
    """Says Paris to everything, and counts how often it is asked."""

    asked = 0

    def chat_ids(self, messages):
        return [len(messages[-1].content)]

    def generate(self, prompts, pool, max_tokens, done):
        self.asked += len(prompts)
        return [Answer("It is Paris.", (1,), (), 1) for _ in prompts]


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "archives", lambda data, held_out: CANDIDATES)
    parrot = Parrot()
    return parrot, [known(parrot, "bf_1", tmp_path, EvalSettings()) for _ in range(2)]


def test_the_base_is_asked_once_and_what_it_answers_rightly_is_kept(found, tmp_path):
    parrot, (first, second) = found
    assert first == second
    assert [(q.type, q.prompt, q.answers, q.edit) for q in first] == [("known", "capital of France?", ("Paris",), None)]
    assert parrot.asked == 2
    (file,) = (tmp_path / "incomes" / "evaluation").iterdir()
    assert json.loads(file.read_text()) == [["capital of France?", ["Paris"]]]


def test_without_the_data_folder_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "archives", lambda data, held_out: {})
    assert known(Parrot(), "bf_1", tmp_path, EvalSettings()) == []

"""Published questions: each format is read, and training and evaluation share none of them."""

import io
import json
import logging
import lzma
import tarfile

import pytest

from incomes_plugin.lab.data.archives import archives, is_held_out_prompt
from incomes_plugin.lab.data.prompts import everyday, questions, tasks, with_passage

N = range(40)
FILES = {
    "webquestions": ("val.json", json.dumps([{"qText": f"who wrote book {i}?", "answers": ["Ann"]} for i in N])),
    "nq": ("NQ-open.dev.jsonl", "\n".join(json.dumps({"question": f"when was {i} built", "answer": ["1"]}) for i in N)),
    "squad_nqg": ("tgt-dev.txt", "\n".join(f"where is place {i} ?" for i in N)),
    "amazon_pqa": (
        "answer_generation/train.csv",
        "\n".join(["a\tb", *(f"B{i}\tdoes it fit {i}?\tx\ty\tz" for i in N)]),
    ),
    "opentriviaqa": ("animals", "\n\n".join(f"#Q What eats {i}?\n^ A fox\nA A fox\nB A hen" for i in N)),
}


@pytest.fixture
def data(tmp_path):
    for name, (member, text) in FILES.items():
        with tarfile.open(tmp_path / f"{name}.tar.xz", "w:xz") as archive:
            info = tarfile.TarInfo(f"{name}/{member}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    lines = "\n".join(json.dumps({"kind": "t0/some_task", "prompt": f"Sum up text {i}"}) for i in range(40))
    (tmp_path / "prompts.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    return tmp_path


def test_every_question_belongs_to_one_part(data):
    for read in (questions, tasks):
        training, evaluation = read(data), read(data, held_out=True)
        assert training.keys() == evaluation.keys()
        for kind, prompts in training.items():
            assert not set(prompts) & set(evaluation[kind])
            assert len(prompts) + len(evaluation[kind]) == 40
            assert all(map(is_held_out_prompt, evaluation[kind]))
    assert set(questions(data)) == set(FILES)


def test_answers_come_along_where_there_are_some(data):
    found = {name: own[0].answers for name, own in archives(data, held_out=False).items()}
    assert found == {
        "webquestions": ("Ann",), "nq": ("1",), "squad_nqg": (), "amazon_pqa": (), "opentriviaqa": ("A fox",)
    }  # fmt: skip


def test_what_is_absent_is_named_and_left_out(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert archives(tmp_path, held_out=True) == tasks(tmp_path) == {}
    assert "no nq.tar.xz" in caplog.text
    assert "no prompts.jsonl.xz" in caplog.text


def test_everyday_prompts_need_no_folder():
    assert everyday(50, seed=1) == everyday(50, seed=1) != everyday(50, seed=2)
    (asked,) = with_passage(["Why?"], ["The sea is wide."], seed=3)
    assert "The sea is wide." in asked

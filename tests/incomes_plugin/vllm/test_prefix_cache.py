"""Who hits whose KV blocks: prompts as in stock vLLM whatever edits there are, what depends on edits never."""

from __future__ import annotations

import pytest

from incomes_plugin.pool.snapshot import SnapshotRef
from tests.incomes_plugin.vllm.lab import Answer, Job, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, prompt

pytestmark = pytest.mark.vllm

FIRST = dict(list(TEXTS.items())[:5])
SECOND = dict(list(TEXTS.items())[5:])
BLOCK = 32


@pytest.fixture(scope="module")
def blobs(fp32: RemoteEngine) -> dict[str, bytes]:
    return fp32.capture(TEXTS)


def commit_both(engines: list[RemoteEngine], blobs: dict[str, bytes], name: str, texts: dict) -> SnapshotRef:
    snapshots = [engine.commit(name, None, {edit: blobs[edit] for edit in texts}) for engine in engines]
    return snapshots[0]


def same(ours: Answer, theirs: Answer) -> bool:
    return ours.tokens == theirs.tokens and all(
        step == pytest.approx(other, abs=FP32, rel=0)
        for step, other in zip(ours.logprobs, theirs.logprobs, strict=True)
    )


def test_prompts_hit_whatever_edits_are_read(
    fp32: RemoteEngine, uncached: RemoteEngine, blobs: dict[str, bytes]
) -> None:
    both = [fp32, uncached]
    a, b = commit_both(both, blobs, "eset_hit_a", FIRST), commit_both(both, blobs, "eset_hit_b", SECOND)
    ids = prompt(600, 200)
    jobs = [Job(ids, scope) for scope in (None, a, b, a, None)]
    answers, fresh = (engine.run(jobs, together=False) for engine in both)
    assert [answer.cached for answer in answers] == [0, 192, 192, 192, 192]  # as five times the same prompt in vLLM
    assert [answer.cached for answer in fresh] == [0] * 5
    assert all(map(same, answers, fresh))
    assert not same(answers[0], answers[1])
    assert not same(answers[1], answers[2])
    a2 = fp32.commit("eset_hit_a", a, {}, removed=["edit_0"])
    assert fp32.run([Job(ids, a2)])[0].cached == 192  # a commit leaves prompts warm


def test_a_prompt_that_ends_with_its_block(fp32: RemoteEngine, uncached: RemoteEngine, blobs: dict[str, bytes]) -> None:
    """The last prompt token reads, so its block is private, also where it is the block's last."""
    a = commit_both([fp32, uncached], blobs, "eset_edge", FIRST)
    ids = prompt(601, 2 * BLOCK)
    longer = (*ids, *prompt(602, 20))
    jobs = [Job(ids, a), Job(longer), Job(longer, a), Job(ids, a), Job(longer)]
    answers, fresh = (engine.run(jobs, together=False) for engine in (fp32, uncached))
    # The first stock request computes the second block as stock vLLM does; from then on it is shared.
    assert [answer.cached for answer in answers] == [0, BLOCK, 2 * BLOCK, BLOCK, 2 * BLOCK]
    assert all(map(same, answers, fresh))


@pytest.mark.parametrize("scope", ["same", "none", "other"])
def test_a_second_turn_that_repeats_the_answer(
    fp32: RemoteEngine, uncached: RemoteEngine, blobs: dict[str, bytes], scope: str
) -> None:
    both = [fp32, uncached]
    a = commit_both(both, blobs, f"eset_turn_{scope}", FIRST)
    b = commit_both(both, blobs, f"eset_turn_{scope}_b", SECOND)
    ids = prompt({"same": 603, "none": 604, "other": 605}[scope], 70)
    (answer,) = fp32.run([Job(ids, a, max_tokens=60)])
    second = Job((*ids, *answer.tokens, *prompt(606, 9)), {"same": a, "none": None, "other": b}[scope])
    (turn,), (fresh,) = fp32.run([second]), uncached.run([second])
    assert turn.cached == 2 * BLOCK  # the blocks before the one with the first prompt's last token
    assert same(turn, fresh)


def test_the_same_question_again_reads_its_own_rows(
    fp32: RemoteEngine, uncached: RemoteEngine, blobs: dict[str, bytes]
) -> None:
    a = commit_both([fp32, uncached], blobs, "eset_again", FIRST)
    jobs = [Job(prompt(607, 40), a, max_tokens=80)] * 3
    together = fp32.run(jobs)
    later = fp32.run(jobs, together=False)
    (fresh,) = uncached.run(jobs[:1])
    assert [answer.cached for answer in later] == [BLOCK] * 3
    assert all(same(answer, fresh) for answer in together + later)


def test_the_users_own_salt_separates(fp32: RemoteEngine, blobs: dict[str, bytes]) -> None:
    a = commit_both([fp32], blobs, "eset_salt", FIRST)
    ids = prompt(608, 100)
    jobs = [Job(ids, a), Job(ids, a, salt="mine"), Job(ids, a, salt="mine"), Job(ids, None, salt="theirs")]
    assert [answer.cached for answer in fp32.run(jobs, together=False)] == [0, 0, 96, 0]

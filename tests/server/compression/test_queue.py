"""The queue alone: order, bounds, leases, attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incomes_server.compression.model import QueueLimits
from incomes_server.compression.queue import JobQueue

from incomes_plugin.errors import QueueFull
from incomes_plugin.gist.edit import Captured, CaptureJob

LIMITS = QueueLimits(interactive=4, bulk=8, lease_s=10, max_attempts=3)


def jobs(*names):
    return [CaptureJob(name, 1, (1,)) for name in names]


def good(lease):
    return [Captured(*job.edit, b"gist") for job in lease.jobs]


def bad(lease, reason="broken"):
    return [Captured(*job.edit, None, reason) for job in lease.jobs]


def names(items):
    return [item.edit_id for item in items]


def judge(queue, lease, outcomes):
    made = [captured.edit for captured in outcomes if captured.blob is not None]
    return queue.judge(lease.id, made, {captured.edit: captured.error for captured in outcomes if captured.error})


@pytest.fixture
def queue():
    return JobQueue(LIMITS)


def complete(queue, lease, outcomes, now_s=0.0):
    verdict = judge(queue, lease, outcomes)
    queue.finish(lease.id, verdict, now_s)
    return verdict


def test_interactive_jobs_go_first_and_bulk_fills_the_batch(queue):
    queue.submit(jobs("b1", "b2", "b3"), interactive=False)
    queue.submit(jobs("i1"), interactive=True)
    assert names(queue.take("w", 3, 0).jobs) == ["i1", "b1", "b2"]


def test_a_full_lane_takes_nothing_of_a_submission(queue):
    queue.submit(jobs("b1", "b2"), interactive=False)
    with pytest.raises(QueueFull) as error:
        queue.submit(jobs(*map(str, range(7))), interactive=False)
    assert error.value.retry_after_s >= 1
    assert queue.stats().bulk == 2
    queue.submit(jobs("i1"), interactive=True)
    assert queue.stats().interactive == 1, "imports do not shut single edits out"


def test_a_job_is_queued_once_and_moves_up_when_it_becomes_interactive(queue):
    queue.submit(jobs("a", "b"), interactive=False)
    queue.submit(jobs("a"), interactive=False)
    queue.submit(jobs("b"), interactive=True)
    assert names(queue.take("w", 9, 0).jobs) == ["b", "a"]
    queue.submit(jobs("a", "b"), interactive=True)
    assert queue.take("w2", 9, 0) is None


def test_an_expired_lease_returns_its_jobs_and_late_work_still_counts(queue):
    queue.submit(jobs("a", "b"), interactive=False)
    late = queue.take("w1", 9, 0)
    assert queue.expire(9.9) == []
    assert queue.take("w2", 9, 9.9) is None
    assert queue.expire(10) == []
    verdict = complete(queue, late, good(late)[:1])
    assert (verdict.made, verdict.given_up) == ([("a", 1)], [])
    assert names(queue.take("w2", 9, 11).jobs) == ["b"], "a is done, b was lost"


def test_a_job_fails_after_its_last_attempt_with_the_reason(queue):
    queue.submit(jobs("poison", "fine"), interactive=True)
    for _ in range(2):
        lease = queue.take("w", 9, 0)
        verdict = complete(queue, lease, bad(lease)[:1] + good(lease)[1:])
        assert names(verdict.again) == ["poison"]
    (failed,) = complete(queue, lease := queue.take("w", 9, 0), bad(lease)).given_up
    assert (failed.edit_id, failed.error) == ("poison", "gave up after 3 attempts: broken")
    assert queue.stats().failed == 1
    assert queue.known() == set()


def test_a_job_whose_workers_all_vanish_fails_too(queue):
    queue.submit(jobs("poison"), interactive=True)
    for attempt in range(3):
        queue.take(f"w{attempt}", 9, 100 * attempt)
        failed = queue.expire(100 * attempt + 50)
    assert names(failed) == ["poison"]
    assert "3 attempts" in failed[0].error


def test_a_job_that_was_never_tried_loses_no_attempt(queue):
    queue.submit(jobs("a"), interactive=True)
    for _ in range(10):
        queue.give_back(queue.take("w", 1, 0).id, attempted=False)
    assert queue.expire(0) == []
    assert queue.stats().interactive == 1


def test_a_worker_that_asks_again_has_lost_its_lease(queue):
    queue.submit(jobs("a"), interactive=True)
    first = queue.take("w", 1, 0)
    second = queue.take("w", 1, 0)
    assert names(second.jobs) == ["a"]
    assert first.id != second.id


def test_a_lease_cannot_expire_while_its_outcomes_are_stored(queue):
    queue.submit(jobs("a"), interactive=True)
    lease = queue.take("w", 1, 0)
    verdict = judge(queue, lease, good(lease))
    queue.expire(1e9)
    assert queue.take("w2", 1, 1e9) is None
    queue.finish(lease.id, verdict, 1e9)
    assert queue.known() == set()


@given(st.data())
def test_no_job_is_lost_or_leased_twice(data):
    queue = JobQueue(LIMITS)
    submitted, settled, leases, clock = set(), set(), [], 0.0
    for step in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["submit", "take", "complete", "expire"]))
        if action == "submit":
            new = jobs(*(f"j{step}-{i}" for i in range(data.draw(st.integers(1, 3)))))
            try:
                queue.submit(new, interactive=data.draw(st.booleans()))
                submitted |= {job.edit for job in new}
            except QueueFull:
                continue
        elif action == "take" and (lease := queue.take(f"w{step}", data.draw(st.integers(1, 4)), clock)):
            leases.append(lease)
        elif action == "complete" and leases:
            lease = leases.pop(data.draw(st.integers(0, len(leases) - 1)))
            outcomes = [data.draw(st.sampled_from([g, b])) for g, b in zip(good(lease), bad(lease), strict=True)]
            verdict = complete(queue, lease, outcomes, clock)
            settled |= {*verdict.made, *(captured.edit for captured in verdict.given_up)}
        elif action == "expire":
            clock += data.draw(st.sampled_from([1.0, 20.0]))
            settled |= {captured.edit for captured in queue.expire(clock)}
        stats = queue.stats()
        assert submitted == queue.known() | settled
        assert stats.interactive + stats.bulk + stats.leased == len(queue.known())


def test_a_lease_goes_on_while_its_worker_gives_signs_of_life_and_never_beyond_its_time(queue):
    queue.submit(jobs("a"), interactive=True)
    lease = queue.take("w", 1, 0, 2)
    assert queue.beat(lease.id, 1.5)
    queue.expire(3)
    assert queue.holds(lease.id)
    for now_s in range(3, 15):
        queue.beat(lease.id, now_s)
    queue.expire(10)
    assert not queue.holds(lease.id), "lease_s is 10, whatever the worker says"
    assert not queue.beat(lease.id, 10)


def test_the_jobs_of_a_silent_worker_go_to_the_next(queue):
    queue.submit(jobs("a"), interactive=True)
    queue.take("killed", 1, 0, 2)
    queue.expire(2)
    assert names(queue.take("w", 1, 2).jobs) == ["a"]


def test_workers_are_known_while_they_ask_or_have_jobs(queue):
    queue.submit(jobs("a", "b"), interactive=True)
    lease = queue.take("one", 2, 0)
    queue.take("idle", 1, 1)
    assert [(w.name, w.leased, w.made) for w in queue.workers(1)] == [("idle", 0, 0), ("one", 2, 0)]
    assert [w.name for w in queue.workers(100)] == ["one"], "it still has its jobs"
    complete(queue, lease, good(lease), 100)
    queue.take("one", 2, 100)
    assert [(w.name, w.leased, w.made) for w in queue.workers(101)] == [("one", 0, 2)]


def test_a_job_that_a_late_worker_has_made_may_be_given_back_by_the_next(queue):
    queue.submit(jobs("a"), interactive=True)
    late = queue.take("late", 1, 0, 2)
    queue.expire(2)
    lease = queue.take("next", 1, 2)
    complete(queue, late, good(late), 3)
    queue.give_back(lease.id, attempted=False)
    again = queue.take("next", 1, 4)
    assert names(again.jobs) == ["a"], "whoever takes it finds that the store has it"
    complete(queue, again, good(again), 5)
    assert queue.known() == set()

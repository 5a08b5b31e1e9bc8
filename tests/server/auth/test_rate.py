"""Requests a minute: never more than the limit in any minute, and evenly back."""

from hypothesis import given
from hypothesis import strategies as st
from incomes_server.auth.rate import RateLimiter


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_bucket_empties_and_fills_evenly():
    clock = Clock()
    limiter = RateLimiter(clock)
    found = [limiter.take("a", "chat", 6) for _ in range(7)]
    assert [each.remaining for each in found] == [5, 4, 3, 2, 1, 0, 0]
    assert [each.retry_after_s > 0 for each in found] == [False] * 6 + [True]
    assert abs(found[-1].retry_after_s - 10) < 1e-6
    assert limiter.take("b", "chat", 6).remaining == 5, "another project's"
    assert limiter.take("a", "write", 6).remaining == 5, "another kind's"
    clock.now += found[-1].retry_after_s
    again = limiter.take("a", "chat", 6)
    assert (again.retry_after_s, again.remaining, round(again.reset_s)) == (0, 0, 60)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.integers(1, 30))
def test_the_sustained_rate_is_the_limit(pauses, limit):
    clock, taken = Clock(), []
    limiter = RateLimiter(clock)
    for pause in pauses:
        clock.now += pause
        found = limiter.take("a", "chat", limit)
        if not found.retry_after_s:
            taken.append(clock.now)
        assert 0 <= found.remaining < limit
    for i, start in enumerate(taken):
        within = [at for at in taken[i:] if at - start <= 60 + 1e-6]
        assert len(within) <= 2 * limit, "a full bucket, and what came back meanwhile"
    assert len(taken) <= limit + (clock.now - 1000) * limit / 60 + 1


def test_buckets_of_projects_that_are_silent_are_forgotten():
    clock = Clock()
    limiter = RateLimiter(clock)
    for number in range(3000):
        clock.now += 0.1
        limiter.take(f"p{number}", "chat", 60)
    assert len(limiter._full_at) <= 1025

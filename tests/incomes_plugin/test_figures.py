"""Totals of routing."""

from incomes_plugin.figures import BOUNDS_S, RoutingFigures


def test_every_duration_has_one_bucket():
    figures = RoutingFigures()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[-1], BOUNDS_S[-1] * 2):
        figures.observe(seconds, picks=1)
    assert figures.routed == sum(figures.buckets) == figures.read == 4
    assert (figures.buckets[0], figures.buckets[-2], figures.buckets[-1]) == (2, 1, 1)


def test_a_request_that_picked_nothing_is_routed_and_not_read():
    figures = RoutingFigures()
    figures.observe(0.3, picks=0)
    assert (figures.read, figures.routed) == (0, 1)

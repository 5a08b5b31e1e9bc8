"""Totals of routing, and their way through a worker's answer."""

from dataclasses import asdict

from incomes_plugin.figures import BOUNDS_S, RoutingFigures


def test_every_duration_has_one_bucket():
    figures = RoutingFigures()
    for seconds in (0.0, BOUNDS_S[0], BOUNDS_S[-1], BOUNDS_S[-1] * 2):
        figures.observe(seconds, picks=1)
    assert figures.routed == sum(figures.buckets) == figures.read == 4
    assert (figures.buckets[0], figures.buckets[-2], figures.buckets[-1]) == (2, 1, 1)


def test_an_answer_of_a_worker_is_the_same_totals():
    figures = RoutingFigures()
    figures.observe(0.3, picks=0)
    assert RoutingFigures.of(asdict(figures)) == figures
    assert (figures.read, figures.routed) == (0, 1)

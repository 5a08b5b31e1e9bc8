"""A new route that changes something is in the walk over the audit log (`tests/server/api/admin/test_audit.py`)."""

from tests.server.api.admin.test_audit import ASKS_AN_ENGINE, CALLS, CHANGES_NOTHING, mutating_routes


def test_every_mutating_route_is_in_the_walk() -> None:
    assert mutating_routes() - CALLS.keys() - CHANGES_NOTHING - ASKS_AN_ENGINE == set()

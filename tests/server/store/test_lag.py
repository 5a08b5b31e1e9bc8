"""How far a replica is behind: versions of all edit sets that it has yet to apply."""

from incomes_server.store.replica_table import ReplicaTable


def test_versions_over_all_edit_sets():
    table = ReplicaTable(lease_s=10)
    table.ack("a", {"x": 3, "y": 1}, 100.0, wait_s=2, serving=True)
    table.ack("new", {}, 101.0, wait_s=2, serving=False)
    found = {lag.name: (lag.serving, lag.versions, lag.idle_s) for lag in table.lag({"x": 5, "y": 1}, 102.0)}
    assert found == {"a": (True, 2, 2.0), "new": (False, 6, 1.0)}


def test_after_a_restart_of_the_store_it_may_lack_everything():
    table = ReplicaTable(lease_s=10)
    table.restore(["a"], 0.0)
    assert [lag.versions for lag in table.lag({"x": 5}, 1.0)] == [5]


def test_a_deleted_set_is_not_waited_for():
    table = ReplicaTable(lease_s=10)
    table.ack("a", {"gone": 2}, 0.0, wait_s=2, serving=True)
    assert [lag.versions for lag in table.lag({}, 1.0)] == [0]

"""Leases and acknowledgements, with a clock of our own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incomes_server.store.replica_table import ReplicaTable

from incomes_plugin.errors import ReplicaNameTaken

SET = "eset_a"


def test_a_lease_lasts_as_long_as_the_replica_may_be_silent():
    table = ReplicaTable(lease_s=5)
    table.ack("r", {}, 100, wait_s=10, serving=True)
    assert table.next_expiry_s() == 115
    assert table.expire(114.9) == []
    assert table.expire(115) == ["r"]
    assert table.next_expiry_s() is None


def test_only_a_change_of_service_is_worth_writing_down():
    table = ReplicaTable()
    assert not table.ack("r", {}, 0, wait_s=0, serving=False)
    assert table.ack("r", {}, 1, wait_s=0, serving=True)
    assert not table.ack("r", {SET: 1}, 2, wait_s=0, serving=True)
    assert table.ack("r", {SET: 1}, 3, wait_s=0, serving=False)


def test_an_unknown_replica_cannot_refuse_or_beat():
    table = ReplicaTable()
    table.nack("ghost", SET, 1, "no", 0)
    table.heard("ghost", 0)
    assert table.states(0) == []


def test_a_restored_replica_has_acknowledged_nothing_yet():
    table = ReplicaTable(lease_s=5)
    table.restore(["r"], 0)
    for deleted in (False, True):
        assert table.progress(SET, 0, deleted=deleted).acked == 0
    assert table.expire(5) == ["r"]


@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(st.booleans(), st.integers(0, 3))), st.integers(0, 3))
def test_reached_means_every_serving_replica(replicas, version):
    table = ReplicaTable()
    for name, (serving, position) in replicas.items():
        table.ack(name, {SET: position}, 0, wait_s=0, serving=serving)
    serving = [position for serves, position in replicas.values() if serves]
    progress = table.progress(SET, version, deleted=False)
    assert progress.reached == (bool(serving) and all(position >= version for position in serving))
    assert (progress.live, progress.acked) == (len(serving), sum(position >= version for position in serving))


def test_a_name_belongs_to_one_process_at_a_time():
    table = ReplicaTable(lease_s=5)
    table.ack("r", {SET: 1}, 0, wait_s=0, serving=True, instance="first")
    with pytest.raises(ReplicaNameTaken, match="for 4 s more"):
        table.ack("r", {}, 1, wait_s=0, serving=False, instance="second")
    assert not table.leave("r", "second")
    assert table.progress(SET, 1, deleted=False).reached, "the first one's lease and position stand"
    table.ack("r", {}, 5, wait_s=0, serving=False, instance="second")
    assert table.leave("r", "second")


def test_after_a_restart_of_the_store_the_name_is_its_that_polls_first():
    table = ReplicaTable(lease_s=5)
    table.restore(["r"], 0)
    table.ack("r", {}, 1, wait_s=0, serving=True, instance="first")
    with pytest.raises(ReplicaNameTaken):
        table.ack("r", {}, 2, wait_s=0, serving=True, instance="second")

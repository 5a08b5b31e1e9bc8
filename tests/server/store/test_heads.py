"""What a replica is told of, and in which order."""

from incomes_server.store.edit_sets import SetHead
from incomes_server.store.heads import StoreHeads

LABEL = "eset_a@production"


def heads():
    found = StoreHeads()
    found.merge({"eset_a": SetHead(3, deleted=False), LABEL: SetHead(1, deleted=False)})
    return found


def behind(found, positions, *, refused=None, serving=True):
    return found.behind(positions, refused=refused or {}, serving=serving)


def test_labels_come_before_their_edit_set_for_a_replica_that_serves():
    assert behind(heads(), {"eset_a": 2}) == [LABEL, "eset_a"]


def test_one_that_catches_up_gets_the_set_first_and_skips_what_it_refuses():
    assert behind(heads(), {}, serving=False) == ["eset_a"]
    assert behind(heads(), {"eset_a": 3}, serving=False) == [LABEL]
    assert behind(heads(), {"eset_a": 3}, serving=False, refused={LABEL: 1}) == []
    assert behind(heads(), {"eset_a": 3}, refused={LABEL: 1}) == [LABEL]


def test_a_label_without_gists_is_tried_again_when_something_moved():
    for news in ({LABEL: SetHead(2, deleted=False)}, {"eset_a": SetHead(4, deleted=False)}):
        found = heads()
        found.cannot_follow(LABEL, 1)
        assert behind(found, {"eset_a": 3}) == []
        found.merge(news)
        assert LABEL in behind(found, {"eset_a": 3})


def test_a_deleted_label_is_news_until_it_is_let_go_and_may_come_back():
    found = heads()
    found.merge({LABEL: SetHead(2, deleted=True)})
    found.merge({LABEL: SetHead(1, deleted=False)})  # read before the deletion, arrived after it
    assert behind(found, {"eset_a": 3, LABEL: 1}) == [LABEL]
    assert behind(found, {"eset_a": 3}) == []
    found.merge({LABEL: SetHead(3, deleted=False)})
    assert behind(found, {"eset_a": 3}) == [LABEL]


def test_a_set_that_is_deleted_at_its_version_stays_deleted():
    found = heads()
    found.merge({"eset_a": SetHead(3, deleted=True)})
    found.merge({"eset_a": SetHead(3, deleted=False)})
    assert found.live == {LABEL}
    assert found.ahead({"eset_a": 4, "eset_b": 1, LABEL: 1}) == ["eset_a", "eset_b"]

"""Labels and snapshots in the store alone: what a caller may refer to, moves, history, other projects."""

import pytest
from incomes_server.edits import NewEdit
from incomes_server.store import commands, labels
from incomes_server.store.core import EditStore
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.labels import get_label, list_labels, moves_of
from incomes_server.store.schema import edit_versions, label_moves
from incomes_server.store.snapshots import diff, get_snapshot, list_snapshots
from sqlalchemy import create_engine, event, select, update

from incomes_plugin.errors import (
    EditSetLabelled,
    EditSetNotFound,
    EtagMismatch,
    IdempotencyKeyReuse,
    InvalidValue,
    LabelNotFound,
    QuotaExceeded,
    SnapshotNotFound,
    SnapshotRetired,
)
from tests.server.gists import outcome_of


def add(store, text, *, project="p", edit_set="default"):
    """One ready edit; one version of the set."""
    store.write(commands.EnsureEditSet(project, edit_set))
    (edit,) = store.write(commands.AddEdits(project, f"add {text}", edit_set, (NewEdit(text, (1, 2)),)))
    store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    return edit.id


def replace(store, edit_id, version):
    store.write(commands.ReplaceEdit("p", f"{edit_id} {version}", edit_id, NewEdit(f"text {version}", (3,))))
    store.write(commands.RecordOutcomes((outcome_of(edit_id, version),)))


def move(store, name, to, *, request_id=None, project="p"):
    return store.write(commands.MoveLabel(project, request_id or f"{name} to {to}", "default", name, to))


def head(store):
    return store.read(get_edit_set, "p", "default").snapshot


def test_a_label_stays_where_it_is_put_while_the_head_moves(store):
    add(store, "a")
    first = head(store)
    label = move(store, "production", "head")
    assert (label.snapshot, label.move, label.previous) == (first, 1, None)
    add(store, "b")
    assert store.read(get_label, "p", "default", "production").snapshot == first != head(store)


@pytest.mark.parametrize("named", ["version", "snapshot", "label", "head"])
def test_four_ways_to_name_a_state(store, named):
    add(store, "a")
    if named != "head":
        first = head(store)
        move(store, "staging", "head")
        add(store, "b")
    else:
        first = head(store)
    to = {"version": "1", "snapshot": first.id, "label": "staging", "head": "head"}[named]
    assert move(store, "production", to).snapshot == first


def test_history_of_moves_rollback_and_coming_back(store):
    for text in "ab":
        add(store, text)
    assert [move(store, "production", to).move for to in ("1", "2")] == [1, 2]
    label = store.read(get_label, "p", "default", "production")
    assert (label.snapshot.version, label.previous.version) == (2, 1)
    assert move(store, "production", str(label.previous.version), request_id="rollback").snapshot.version == 1
    gone = store.write(commands.DeleteLabel("p", "delete", "default", "production"))
    assert (gone.move, gone.snapshot.version) == (4, 1)
    with pytest.raises(LabelNotFound):
        store.read(get_label, "p", "default", "production")
    with pytest.raises(LabelNotFound):
        store.write(commands.DeleteLabel("p", "again", "default", "production"))
    again = move(store, "production", "2", request_id="anew")
    assert (again.move, again.previous) == (5, None)


def test_a_move_that_changes_nothing_is_no_move_and_a_repeated_request_is_one(store):
    add(store, "a")
    first = move(store, "production", "head", request_id="r")
    assert move(store, "production", "1", request_id="s") == first
    add(store, "b")
    assert move(store, "production", "head", request_id="r") == first
    with pytest.raises(IdempotencyKeyReuse):
        move(store, "production", "2", request_id="r")


@pytest.mark.parametrize("name", ["", "head", "snap_x", "7", "a b", "a@b", "ä", "a" * 65, "a\n"])
def test_names_that_could_be_taken_for_something_else(store, name):
    add(store, "a")
    with pytest.raises(InvalidValue, match="a label is a letter"):
        move(store, name, "head")
    assert store.read(list_labels, "p", "default") == []


@pytest.mark.parametrize(
    ("to", "error"),
    [("2", SnapshotNotFound), ("9" * 40, SnapshotNotFound), ("snap_" + "0" * 24, SnapshotNotFound),
     ("nowhere", LabelNotFound), ("", LabelNotFound)],
)  # fmt: skip
def test_states_that_are_not_there(store, to, error):
    add(store, "a")
    with pytest.raises(error) as raised:
        move(store, "production", to)
    assert raised.value.param == "to"


def test_before_anything_was_in_the_set(store):
    store.write(commands.EnsureEditSet("p", "default"))
    assert move(store, "production", "head").snapshot.num_edits == 0
    add(store, "a")
    assert move(store, "production", "0", request_id="same").move == 1


def test_another_projects_sets_snapshots_and_labels_do_not_exist(store):
    add(store, "a")
    move(store, "production", "head")
    with pytest.raises(EditSetNotFound):
        move(store, "production", "head", project="q")
    with pytest.raises(EditSetNotFound):
        store.read(list_labels, "q", "default")
    store.write(commands.EnsureEditSet("q", "default"))
    with pytest.raises(SnapshotNotFound):
        move(store, "production", head(store).id, project="q")
    with pytest.raises(SnapshotNotFound):
        store.read(get_snapshot, "q", head(store).id)


def test_snapshots_are_listed_newest_first_each_content_once(store):
    add(store, "a")
    second = add(store, "b")
    store.write(commands.RetireEdit("p", "retire", second))
    move(store, "production", "2")
    page, more = store.read(list_snapshots, "p", "default", limit=1, after=None, order="desc")
    assert ([s.snapshot.version for s in page], more) == ([3], True)
    page, more = store.read(list_snapshots, "p", "default", limit=5, after=page[0].snapshot.id, order="desc")
    assert [(s.snapshot.version, s.labels) for s in page] == [(2, ("production",))]
    assert not more
    assert store.read(get_snapshot, "p", head(store).id).snapshot.version == 3


def test_diff_both_ways_and_through_a_replacement(store):
    first = add(store, "a")
    second = add(store, "b")
    replace(store, first, 2)
    found = store.read(diff, "p", "default", "1", "head")
    assert (set(found.added), set(found.removed)) == ({(second, 1), (first, 2)}, {(first, 1)})
    back = store.read(diff, "p", "default", "head", "1")
    assert (set(back.added), set(back.removed)) == (set(found.removed), set(found.added))
    assert store.read(diff, "p", "default", "2", "2").added == ()


def test_what_a_model_change_made_anew_is_no_difference(store):
    first = add(store, "a")
    store.write(commands.RequeueStale("mf_b"))
    store.write(commands.RecordOutcomes((outcome_of(first, 1, fingerprint="mf_b"),)))
    found = store.read(diff, "p", "default", "1", "head")
    assert (found.added, found.removed, found.base.id) == ((), (), found.target.id)


def test_of_two_who_have_read_the_same_move_one_moves_the_label(store):
    add(store, "a")
    add(store, "b")

    def at(move_number, to):
        return commands.MoveLabel("p", f"{move_number} {to}", "default", "production", to, (move_number,))

    assert store.write(at(0, "1")).move == 1
    assert store.write(at(1, "2")).move == 2
    for late in (at(1, "1"), commands.DeleteLabel("p", "d", "default", "production", (1,))):
        with pytest.raises(EtagMismatch, match="label production is at version 2 now"):
            store.write(late)
    assert store.read(moves_of, "p") == {f"{head(store).edit_set}@production": 2}
    assert store.read(moves_of, "q") == {}


def test_a_set_with_labels_is_not_deleted_and_a_new_one_of_its_name_has_none(store):
    add(store, "a")
    move(store, "production", "head")
    move(store, "staging", "head")
    with pytest.raises(EditSetLabelled, match="labels production, staging; delete these first"):
        store.write(commands.DeleteEditSet("p", "delete", "default"))
    assert head(store).num_edits == 1
    for name in ("production", "staging"):
        store.write(commands.DeleteLabel("p", f"delete {name}", "default", name))
    store.write(commands.DeleteEditSet("p", "delete", "default"))
    store.write(commands.EnsureEditSet("p", "default"))
    assert store.read(list_labels, "p", "default") == []


def test_what_a_label_takes_is_known_whatever_the_head_is(store):
    edit = add(store, "a")
    replace(store, edit, 2)
    add(store, "b")

    def taken(to):
        move(store, "production", to)
        return store.read(lambda conn: conn.execute(select(label_moves).order_by(label_moves.c.move.desc())).first())

    assert [taken(to).num_tokens for to in ("1", "2", "3", "0")] == [2, 1, 3, 0]


def test_a_move_sends_no_gists_that_the_newest_state_has(store, monkeypatch):
    monkeypatch.setattr(labels, "FEW_GISTS", 1)
    for number in range(9):
        add(store, f"text {number}")
    key = move(store, "production", "1").key
    assert move(store, "production", "4").move == 2
    delta = store.read(labels.read_delta, key, 1, 9)
    assert (delta.base, len(delta.added), len(delta.removed)) == (head(store).id, 0, 5)
    assert move(store, "production", "5").move == 3
    delta = store.read(labels.read_delta, key, 2, 9)
    assert (len(delta.added), len(delta.removed)) == (1, 0), "one gist is not worth a search of the whole log"


@pytest.mark.parametrize("loss", [{"blob": None}, {"fingerprint": "mf_another"}], ids=["no gist", "another model's"])
def test_a_label_does_not_move_to_a_state_that_no_replica_can_build(store, database_url, loss):
    edit_id = add(store, "a")
    move(store, "production", "head")
    replace(store, edit_id, 2)
    move(store, "production", "head", request_id="on")
    store.write(commands.RequeueStale("mf_a"))
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(update(edit_versions).where(edit_versions.c.version == 1).values(**loss))
    engine.dispose()
    with pytest.raises(SnapshotRetired, match="1 gists of version 1 are missing or of another model"):
        move(store, "production", "1", request_id="back")
    assert store.read(get_label, "p", "default", "production").snapshot == head(store)


def test_moves_left_behind_are_forgotten_but_where_the_label_is_and_was_stays(store, database_url):
    now = [1_000]
    store.close()
    store = EditStore(database_url, clock=lambda: now[0])
    key, requests = None, {}
    for text in "abc":
        add(store, text)
    for number, to in enumerate("1213", start=1):
        now[0] = 1_000 * number
        requests[number] = move(store, "production", to, request_id=f"m{number}")
        key = requests[number].key
    move(store, "staging", "2")

    def moves():
        return store.read(lambda c: [*c.scalars(select(label_moves.c.move).where(label_moves.c.name == "production"))])

    store.write(commands.ForgetMoves(999))
    assert moves() == [1, 2, 3, 4]
    store.write(commands.ForgetMoves(2_500))
    assert moves() == [2, 3, 4], "at that time the label was where its second move brought it"
    store.write(commands.ForgetMoves(10**9))
    assert moves() == [3, 4]
    label = store.read(get_label, "p", "default", "production")
    assert (label.move, label.snapshot.version, label.previous.version) == (4, 3, 1)
    assert move(store, "production", "2", request_id="m2") == label, "sent again; what it did then is forgotten"
    assert move(store, "production", "1", request_id="m3").snapshot == requests[3].snapshot
    assert store.read(labels.heads)[key].version == 4
    for at in (0, 1, 4):  # a replica at a move that is forgotten goes on from the set's state
        assert store.read(labels.read_delta, key, at, 3).position == 4
    assert move(store, "production", str(label.previous.version), request_id="back").move == 5
    gone = store.write(commands.DeleteLabel("p", "delete", "default", "staging"))
    store.write(commands.ForgetMoves(10**9))
    assert store.write(commands.DeleteLabel("p", "delete", "default", "staging")) == gone
    assert store.read(labels.heads)[f"{gone.edit_set}@staging"].deleted
    store.close()


def test_looking_for_news_reads_no_history(store):
    add(store, "a")
    for number in range(40):
        move(store, "production", str(number % 2), request_id=str(number))
    sent = []
    event.listen(store._reader, "before_cursor_execute", lambda _c, _k, sql, *_: sent.append(sql))
    assert [head.version for head in store.read(labels.heads).values()] == [40]
    assert len(store.read(list_labels, "p", "default")) == 1
    assert not [sql for sql in sent if "label_moves" in sql and "move IN" not in sql]


def test_an_edit_set_has_so_many_labels_and_a_deleted_one_makes_room(store):
    add(store, "a")
    for number in range(labels.MOST_LABELS):
        move(store, f"l{number}", "head")
    with pytest.raises(QuotaExceeded, match="64 labels"):
        move(store, "one-more", "head")
    store.write(commands.DeleteLabel("p", "delete", "default", "l0"))
    assert move(store, "one-more", "head", request_id="again").name == "one-more"

"""Gists behind a real S3 API, OpenStack Swift's: what `test_objects.py` shows on a folder holds there too."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from incomes_server.edits import EditStatus, NewEdit
from incomes_server.store import commands, objects
from incomes_server.store.backup import backup, restore
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.edits import get_edit
from incomes_server.store.log import read_delta

from incomes_plugin.errors import GistStorageFailed
from tests.postgres import Cluster
from tests.server.gists import keys_of, outcome_of
from tests.server.store.test_objects import blobs_in_rows, loose, made
from tests.swift import IS_HERE, Swift, swift

pytestmark = pytest.mark.skipif(
    not IS_HERE or importlib.util.find_spec("s3fs") is None,
    reason="NOT CHECKED against an S3 API: run deploy/setup/swift.sh, and install the extra s3",
)
FOLDER = "s3://gists/store"


@pytest.fixture(scope="module")
def storage() -> Iterator[Swift]:
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="swift", dir="/var/tmp")))
        running = opened.enter_context(swift(folder))
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        for name, value in running.environment.items():
            patch.setenv(name, value)
        files().mkdir("gists")
        yield running


def files() -> Any:
    """The storage, past the store."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True)


def stored() -> list[str]:
    """Names of its objects."""
    return sorted(files().find("gists/store"))


@pytest.fixture
def database_url(postgres: Cluster) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def store(storage: Swift, database_url: str) -> Iterator[EditStore]:
    for left in stored():
        files().rm_file(left)
    with closing(EditStore(database_url, gist_storage=FOLDER)) as opened:
        opened.probe_storage()
        yield opened


def test_gists_are_written_read_and_deleted(store: EditStore) -> None:
    edit_set, edits = made(store, "a", "b")
    assert all(objects.is_reference(blob) for blob in blobs_in_rows(store))
    assert len(stored()) == 2
    assert keys_of(store.read(read_delta, edit_set.id, 0).added) == [(edit.id, 1) for edit in edits]
    store.write(commands.EraseEdit("p", "erase", edits[0].id))
    assert store.bury()
    assert (len(stored()), loose(store), store.read(problems)) == (1, 0, [])


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_an_object_that_is_not_what_was_written_is_never_used(store: EditStore, damage: str) -> None:
    edit_set, _ = made(store, "a")
    (path,) = stored()
    if damage == "changed":
        files().pipe_file(path, files().cat_file(path) + b"x")
    else:
        files().rm_file(path)
    with pytest.raises(GistStorageFailed, match="SHA-256 is another" if damage == "changed" else "has no object"):
        store.read(read_delta, edit_set.id, 0)


def test_a_storage_that_is_out_of_reach_refuses_and_comes_back(store: EditStore, storage: Swift) -> None:
    made(store, "a")
    (edit,) = store.write(commands.AddEdits("p", "later", "default", (NewEdit("later", (1, 2)),)))
    storage.stop("proxy")
    try:
        with pytest.raises(GistStorageFailed):
            store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
        assert store.read(get_edit, "p", edit.id).status is not EditStatus.READY
    finally:
        storage.start("proxy", storage.port)
    assert store._storage is not None
    store._storage._silent_until_s = 0  # after a silence nobody asks for a while
    store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
    assert store.read(get_edit, "p", edit.id).status is EditStatus.READY
    assert len(stored()) == 2


def test_a_backup_has_the_gists_itself(store: EditStore, database_url: str, tmp_path: Path) -> None:
    made(store, "a", "b")
    assert backup(database_url, tmp_path / "backup.db", FOLDER).edits == 2
    assert restore(tmp_path / "backup.db", f"sqlite:///{tmp_path}/new.db").edits == 2

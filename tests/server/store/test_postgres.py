"""Two stores on one PostgreSQL, as when two clusters overlap during an upgrade. Needs INCOMES_TEST_POSTGRES_URL."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from incomes_server.edits import NewEdit
from incomes_server.store import commands
from incomes_server.store.check import problems
from incomes_server.store.core import EditStore
from incomes_server.store.counts import count
from incomes_server.store.edit_sets import get_edit_set
from incomes_server.store.log import read_delta
from sqlalchemy import create_engine

from tests.server.gists import outcome_of

URL = os.environ.get("INCOMES_TEST_POSTGRES_URL", "")

pytestmark = pytest.mark.skipif(not URL, reason="INCOMES_TEST_POSTGRES_URL names no database")


@pytest.fixture
def schema_url():
    name = f"test_{uuid.uuid4().hex[:8]}"
    engine = create_engine(URL, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.exec_driver_sql(f"CREATE SCHEMA {name}")
    yield f"{URL}?options=-csearch_path%3D{name}"
    with engine.connect() as conn:
        conn.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


def test_two_writers_share_one_dense_log_and_the_request_ids(schema_url):
    stores = [EditStore(schema_url) for _ in range(2)]
    edit_set = stores[0].write(commands.EnsureEditSet("p", "default"))

    def write(number):
        store = stores[number]
        new = (NewEdit("text", (1,)),)
        for i in range(60):
            (edit,) = store.write(commands.AddEdits("p", f"{number}-{i}", "default", new))
            store.write(commands.RecordOutcomes((outcome_of(edit.id, 1),)))
            store.write(commands.AddEdits("p", f"same-{i}", "default", new))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert stores[0].read(count).edits == {"ready": 120, "pending": 60}
    assert stores[1].read(get_edit_set, "p", "default").snapshot.version == 120
    assert stores[0].read(read_delta, edit_set.id, 0).snapshot.num_edits == 120
    assert stores[0].read(problems) == []
    for store in stores:
        store.close()

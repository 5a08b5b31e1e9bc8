"""`X-Incomes-Min-Version`: an engine that is behind waits, then refuses; it never answers from an older state."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from incomes_server.api.chat import resolve
from incomes_server.api.chat.fields import EditsField
from incomes_server.api.chat.resolve import ScopeResolver
from incomes_server.api.http.readiness import STAGES, Readiness

from incomes_plugin.errors import InvalidValue, NotReady
from incomes_plugin.pool.snapshot import SnapshotRef

SET = "eset_a"


class Engine:
    """An engine that has come to `version`."""

    def __init__(self, version):
        self.version = version

    def current(self, edit_set):
        return replace(SnapshotRef.empty(edit_set), version=self.version) if self.version else None

    def off(self, edit_set):
        return None


def resolver_of(engine, newest):
    async def id_of(project, edit_set):
        return SET

    async def get_edit_set(project, edit_set):
        return SimpleNamespace(snapshot=replace(SnapshotRef.empty(SET), version=newest))

    readiness = Readiness()
    for stage in STAGES:
        readiness.passed(stage)
    directory = SimpleNamespace(id_of=id_of, store=SimpleNamespace(get_edit_set=get_edit_set))
    return ScopeResolver(engine, directory, readiness)


async def test_an_engine_that_is_behind_waits_until_it_has_the_version():
    engine = Engine(0)
    asking = asyncio.create_task(resolver_of(engine, 3).resolve("acme", None, False, "3"))
    while not asking.done() and engine.version < 3:
        engine.version += 1
        await asyncio.sleep(0)
    found = await asking
    assert found.headers["x-incomes-version"] == "3"


async def test_one_that_stays_behind_refuses(monkeypatch):
    monkeypatch.setattr(resolve, "MIN_VERSION_WAIT_S", 0.0)
    with pytest.raises(NotReady, match="has version 2 of the edit set, not 3"):
        await resolver_of(Engine(2), 3).resolve("acme", None, False, "3")


async def test_a_version_that_never_was_is_the_callers_mistake(monkeypatch):
    monkeypatch.setattr(resolve, "MIN_VERSION_WAIT_S", 0.0)
    with pytest.raises(InvalidValue, match="is at version 2") as refused:
        await resolver_of(Engine(2), 2).resolve("acme", None, False, "3")
    assert refused.value.param == "x-incomes-min-version"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        *[(text, None) for text in ("", "-1", "1.5", "9" * 19, "٣")],
        ("1", EditsField(label="production")),
        ("1", EditsField(snapshot="snap_" + "0" * 24)),
    ],
)
async def test_what_is_no_version_of_the_newest_state_is_refused(text, field):
    with pytest.raises(InvalidValue, match="takes the `set_version` of an edit"):
        await resolver_of(Engine(5), 5).resolve("acme", field, False, text)

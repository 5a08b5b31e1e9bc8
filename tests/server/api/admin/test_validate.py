"""`POST /v1/edits/validate` says all that adding would refuse, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from incomes_server.settings import Settings

from tests.server.api.admin.serving import serving
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray

KEYS = {"authorization": "Bearer k-acme"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


async def test_every_rule_is_said_and_nothing_is_written(stack: Any, model: Path) -> None:
    settings = Settings(api_keys=("acme:k-acme", "zen:k-zen"), max_edits_per_project=2)
    async with serving(stack, model, settings=settings) as client:
        client.headers.update(KEYS)

        async def codes(**body: Any) -> list[str]:
            answer = await client.post("/v1/edits/validate", json={"text": "Pump Z9 is red.", **body})
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found["valid"] is (found["problems"] == [])
            assert found["num_tokens"] > 0
            assert found["gist_bytes"] > 0
            return [problem["code"] for problem in found["problems"]]

        assert await codes() == [], "the default set is made by the first edit"
        assert (await client.get("/v1/edit_sets")).json()["data"] == [], "and not by this"
        assert await codes(supersedes=["edit_none"]) == ["edit_not_found"]
        assert await codes(edit_set="nowhere") == ["edit_set_not_found"]
        assert await codes(text="pump " * 5000) == ["edit_too_long"]
        first = {"text": "Pump Z9 is red.", "external_id": "doc-1"}
        added = await client.post("/v1/edits", json=first, params={"wait": "active"})
        assert added.status_code == 201, added.text
        assert await codes(external_id="doc-1") == ["edit_conflict"]
        assert await codes(supersedes=[added.json()["id"]]) == []
        await client.post("/v1/edits", json={"text": "Pump Z9 is blue."}, params={"wait": "active"})
        assert await codes(external_id="doc-1") == ["edit_conflict", "quota_exceeded"]
        assert (await client.post("/v1/edits/validate", json={"text": "", "txt": 1})).status_code == 400
        listed = (await client.get("/v1/edits")).json()["data"]
        assert len(listed) == 2
        other = {"authorization": "Bearer k-zen"}
        foreign = {"text": "t", "supersedes": [added.json()["id"]]}
        said = (await client.post("/v1/edits/validate", json=foreign, headers=other)).json()
        assert [problem["code"] for problem in said["problems"]] == ["edit_not_found"]


async def test_without_an_engine_a_preview_is_not_ready(stack: Any, model: Path) -> None:
    async with serving(stack, model) as client:
        answer = await client.post("/v1/edits/preview", json={"text": "Pump Z9 is red."})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")

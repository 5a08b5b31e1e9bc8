"""A store that served a model goes on with its transplant: gists of the same tokens stay, the others are made anew."""

import pytest
from incomes_server.cli.server_process import server_process

from incomes_plugin.transplant.checkpoint import write_checkpoint
from incomes_plugin.transplant.cutting import Cut
from incomes_plugin.transplant.prepare import prepare
from incomes_plugin.transplant.recipe import Recipe
from tests.e2e.conftest import VLLM_FLAGS, Running, add, ask
from tests.incomes_plugin.transplant.conftest import byte_level

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

TEXTS = ("The warranty is 36 months.", "Zebras like chess.", "The capital of Mars is Olympus.")


def test_gists_move_with_the_model(tmp_path, tiny_model):
    byte_level([" capital", " of"], eos_token="<|end|>").save_pretrained(tmp_path / "donor")
    prepared = prepare(tiny_model, tmp_path / "donor", {}, Cut.WORDS)
    write_checkpoint(prepared, Recipe("subword"), tmp_path / "transplanted")
    folder = tmp_path / "server"
    folder.mkdir()
    args = ["--", *VLLM_FLAGS]
    with (
        server_process(folder, lambda _: None, model=str(tiny_model), args=args) as process,
        Running(process, folder).admin() as admin,
    ):
        edits = [add(admin, "default", text) for text in TEXTS]
    lines = []
    with server_process(folder, lines.append, model=str(tmp_path / "transplanted"), args=args) as process:
        running = Running(process, folder)
        said = "\n".join(lines)
        assert "2 edits of model mf_" in said  # " capital" and " of" are one token each now
        assert "1 edits were compressed for another model" in said
        with running.admin() as admin:
            found = [admin.get(f"/v1/edits/{edit['id']}").json() for edit in edits]
        assert [(edit["status"], edit["text"]) for edit in found] == [("ready", text) for text in TEXTS]
        sizes = [edit["num_tokens"] for edit in found]
        assert sizes[:2] == [edit["num_tokens"] for edit in edits[:2]]
        assert sizes[2] < edits[2]["num_tokens"]
        answer = ask(running.chat())
        assert answer.headers["x-incomes-edits"] == "3"
        named = {applied["edit"] for applied in answer.parse().model_extra["edits"]["applied"]}
        assert named <= {edit["id"] for edit in edits}
        assert named

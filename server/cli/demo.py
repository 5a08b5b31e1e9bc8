"""`incomes demo`: runs `incomes_server.cli.demo_steps` against a server of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from incomes_server.cli.output import ExitCode, fail, out
from incomes_server.cli.serve import AdapterOption, ModelArgument


def demo(
    model: ModelArgument = None,
    adapter: AdapterOption = None,
    edits: Annotated[int, typer.Option(min=1, max=1000, help="how many more edits to import")] = 1000,
) -> None:
    """Show an edit change an answer, end to end, on a server started for the purpose."""
    from incomes_server.cli.demo_steps import Demo, DemoFailed, invented_facts
    from incomes_server.cli.server_process import server_process

    facts = invented_facts(edits)
    with tempfile.TemporaryDirectory(prefix="incomes-demo-") as folder:
        say("starting the server …")
        args = ["--adapter", adapter] if adapter else []
        with server_process(Path(folder), say, model=model, args=args) as server:
            say("")
            try:
                Demo(server.chat_url, server.admin_url, facts, say).run()
            except DemoFailed as error:
                fail(f"the demo failed: {error}")
            status = server.stop()
        if status != 0:
            fail(f"the server ended with status {status}", ExitCode.FAILED)
        say("server stopped, exit 0")


def say(line: str) -> None:
    """One line of the transcript."""
    out.print(line, markup=False)
    out.file.flush()

"""The command `incomes`: a noun, then a verb; one file for each noun.

argv ─► vLLM's flags set aside ─► main.py ─► edit.py, edit_set.py … ─► the typed client ─► admin API ─► output.py
                                         ├─► serve.py, demo.py, doctor.py, config.py
                                         └─► lazy.py: adapt, capacity, eval, facts, plan, verbatim … ─► the lab

Nothing heavy (torch, vLLM, Ray) is imported before a command needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `incomes` command."""
    from incomes_server.cli.main import app

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale without the letters of a text
    own, passed_on = split_passed_on(list(sys.argv[1:] if argv is None else argv))
    app(args=own, obj=passed_on)


def split_passed_on(argv: list[str]) -> tuple[list[str], list[str]]:
    """`serve … -- <vLLM flags>`: what follows the first `--` belongs to vLLM. Other commands keep their `--`."""
    if argv[:1] not in (["serve"], ["compress"]) or "--" not in argv:
        return argv, []
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]

"""`incomes`: noun, then verb. One file per noun; torch, vLLM and Ray are imported when a command needs them."""

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
    if argv[:1] != ["serve"] or "--" not in argv:
        return argv, []
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]

"""`incomes adapt MODEL --out DIR`: options in, an adapter folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from incomes_plugin.errors import IncomesError

app = typer.Typer(add_completion=False)
_console = Console(stderr=True)


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="base: `default`, a folder, or a hub id")] = "default",
    out: Annotated[Path, typer.Option(help="folder that the adapter is written to")] = Path("adapter"),
    data: Annotated[
        list[Path] | None,
        typer.Option(help="folder of published edits and prompts, or your own edits as JSONL; may be given twice"),
    ] = None,
    scale: Annotated[float, typer.Option(help="how much to learn from; 1 is what the packaged adapter took")] = 1.0,
    seed: Annotated[int, typer.Option(help="of everything that is drawn")] = 7,
    cache: Annotated[Path | None, typer.Option(help="folder of captured features; default: DIR/cache")] = None,
    cache_gb: Annotated[float, typer.Option(help="largest size of that folder")] = 12.0,
    keep_cache: Annotated[bool, typer.Option(help="leave the captured features there for another run")] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads, and processes of one thread; 1 = one thing at a time")
    ] = None,
) -> None:
    """Make a frozen base take edits: capture, train routing, verification and reading, calibrate, write the adapter.

    Run it again after an interruption: what was captured is not captured again.
    """
    try:
        _adapt(model, out, data or [], scale, seed, cache, cache_gb, keep_cache, threads)
    except IncomesError as error:
        _console.print(f"error: {error.message}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _adapt(
    model: str, out: Path, data: list[Path], scale: float, seed: int, cache: Path | None, cache_gb: float,
    keep_cache: bool, threads: int | None,
) -> None:  # fmt: skip
    import shutil

    import torch

    from incomes_plugin.errors import InvalidValue
    from incomes_plugin.lab.adapt.card import write_card
    from incomes_plugin.lab.adapt.options import AdaptOptions
    from incomes_plugin.lab.adapt.run import adapt_base
    from incomes_plugin.lab.data.examples import own
    from incomes_plugin.lab.progress import stages
    from incomes_plugin.model.base import resolve_model

    if missing := [path for path in data if not path.exists()]:
        raise InvalidValue(f"--data {missing[0]}: no such file or folder", param="data")
    if threads is not None:
        torch.set_num_threads(threads)
    folders = [path for path in data if path.is_dir()]
    examples = tuple(example for path in data if path.is_file() for example in own(path))
    options = AdaptOptions(
        base_dir=resolve_model(None if model == "default" else model, say=_say),
        base_name=model, out=out, data=folders[0] if folders else None, own=examples, scale=scale, seed=seed,
        cache=cache, cache_bytes=int(cache_gb * 1e9),
    )  # fmt: skip
    with stages(_console) as report:
        adapter, record = adapt_base(options, report)
    write_card(options, record, adapter)
    if not keep_cache:
        shutil.rmtree(options.cache_folder)
    _say(f"adapter in {out}: {sum(record.seconds.values()):.0f} s; serve it with `incomes serve {out}`")


def _say(text: str) -> None:
    _console.print(text, markup=False, highlight=False, soft_wrap=True)

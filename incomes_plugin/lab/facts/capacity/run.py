"""Run an experiment's jobs, each once. Finished cells are in the results file: a stopped run goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from incomes_plugin.errors import InvalidValue
from incomes_plugin.lab.facts.capacity.experiment import Experiment, Measurement
from incomes_plugin.lab.facts.capacity.report import write_report
from incomes_plugin.lab.progress import StageProgress

Provenance = Callable[[], dict[str, object]]


def run(
    experiment: Experiment, out: Path, where: Provenance, *, quick: bool, resume: bool, progress: StageProgress
) -> list[Measurement]:
    """Measure what is missing and write `facts-<name>.json`, `.csv`, `.md` and `.png` into `out`."""
    path = out / f"facts-{experiment.name}.json"
    cells = _read(experiment, path) if resume and path.is_file() else []
    jobs = experiment.jobs(quick=quick)
    done = {cell.job for cell in cells}
    out.mkdir(parents=True, exist_ok=True)
    for place, job in enumerate(jobs):
        if job not in done:
            cells.append(_measured(experiment, job))
            _write(experiment, cells, path, where())
        progress(experiment.title, place + 1, len(jobs))
    document = _write(experiment, cells, path, where())
    write_report(experiment, cells, document, out)
    return cells


def _measured(experiment: Experiment, job: Any) -> Measurement:
    start = time.process_time()
    result = experiment.measure(job)
    return Measurement(job, result, round(time.process_time() - start, 1))


def _write(experiment: Experiment, cells: list[Measurement], path: Path, head: dict[str, object]) -> dict[str, Any]:
    document = {
        **head,
        "title": experiment.title,
        "checks": [asdict(check) for check in experiment.checks(cells)],
        "cells": [asdict(cell) for cell in cells],
    }
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.replace(path)
    return document


def _read(experiment: Experiment, path: Path) -> list[Measurement]:
    try:
        found = json.loads(path.read_text())["cells"]
        return [
            Measurement(experiment.job_type(**cell["job"]), experiment.result_type(**cell["result"]), cell["cpu_s"])
            for cell in found
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidValue(
            f"{path} holds no cells of this experiment ({error}); run without --resume to begin anew", param="resume"
        ) from error

"""The interface of every experiment: jobs that are measured one by one, a table, a plot, and checks of what it should
show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Measurement(Generic[Job, Result]):
    """One measured job; `cpu_s` is what measuring took."""

    job: Job
    result: Result
    cpu_s: float


@dataclass(frozen=True)
class Claim:
    """One claim: where its bound comes from, what was measured, and whether it holds."""

    what: str
    bound: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Table:
    """A table of words and figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Curve:
    """One line of a plot; `law` = what is published, drawn dashed."""

    label: str
    points: Sequence[tuple[float, float]]
    law: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves and their axes."""

    x: str
    y: str
    curves: Sequence[Curve]
    logarithmic: bool = True
    levels: Sequence[tuple[str, float]] = field(default=())


class Experiment(ABC, Generic[Job, Result]):
    """Jobs in, cells out; `run.py` calls `measure`, `report.py` the rest.

    Attributes:
        name: of the command's option and of the results files, `facts-<name>`.
        title: of the report.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    job_type: type[Job]
    result_type: type[Result]

    @abstractmethod
    def jobs(self, *, quick: bool) -> list[Job]:
        """Everything to measure, cheapest first; `quick`: seconds of work that show that it runs."""

    @abstractmethod
    def measure(self, job: Job) -> Result:
        """Measure one."""

    @abstractmethod
    def checks(self, cells: Sequence[Measurement[Job, Result]]) -> list[Claim]:
        """What was to be shown, as far as these cells tell."""

    @abstractmethod
    def table(self, cells: Sequence[Measurement[Job, Result]]) -> Table:
        """The figures."""

    @abstractmethod
    def plot(self, cells: Sequence[Measurement[Job, Result]]) -> Plot:
        """The picture."""

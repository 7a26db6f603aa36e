"""Make, read and describe workloads; `steelyard.cli.workload_app` holds the options."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.domain.workload import Workload, WorkloadTask
from steelyard.errors import WorkloadError
from steelyard.report.tables import print_grid
from steelyard.report.workload_grids import figures_grid, import_grid
from steelyard.sim.agents import agent_named, agent_tasks
from steelyard.sim.arrivals import FittedArrivals, replayed_s, with_arrivals
from steelyard.sim.describe import describe
from steelyard.store.imports.read import import_workload
from steelyard.store.imports.record import ImportReport
from steelyard.store.workload_file import write_workload


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tasks arrive, and what else is set for all of them.

    Attributes:
        rate_per_s: Wanted rate; None keeps that of the recorded arrivals.
        burstiness: Spread of the gaps of a drawn process.
        hourly: Factors of its hours, comma-separated.
        arrivals: File whose arrivals are replayed; None draws from a process.
        deadline_after_s: Deadline of every task; None leaves deadlines as they are.
        budget_usd: Budget of every task; None leaves budgets as they are.
        model: Model of every call; empty leaves models as they are.
        seed: Of all draws.
    """

    rate_per_s: float | None
    burstiness: float
    hourly: str
    arrivals: Path | None
    deadline_after_s: float | None
    budget_usd: float | None
    model: str
    seed: int

    def check(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            WorkloadError: One of them does not.
        """
        for option, value in (
            ("--deadline", self.deadline_after_s),
            ("--budget", self.budget_usd),
        ):
            if value is not None and not 0.0 < value < math.inf:
                raise WorkloadError(f"{option} is {value:g}; it must be a number above 0")
        if not math.isfinite(self.burstiness):
            raise WorkloadError(f"--burstiness is {self.burstiness:g}; take a number, 1 is Poisson")

    @property
    def draws(self) -> bool:
        """Are new arrivals wanted?"""
        return self.rate_per_s is not None or self.arrivals is not None

    def times_s(self, tasks: int) -> list[float]:
        """When do so many tasks arrive?"""
        if self.arrivals is not None:
            recorded = import_workload(self.arrivals).workload.tasks
            return replayed_s([t.arrival_s for t in recorded], tasks, self.rate_per_s, self.seed)
        if self.rate_per_s is None:
            raise WorkloadError("no arrivals: give --rate in tasks per second, or --arrivals FILE")
        process = FittedArrivals(
            rate_per_s=self.rate_per_s, hourly=self._factors(), burstiness=self.burstiness
        )
        return process.draw_s(tasks, self.seed)

    def _factors(self) -> tuple[float, ...]:
        try:
            factors = tuple(float(one) for one in self.hourly.split(",")) if self.hourly else (1.0,)
        except ValueError as error:
            raise WorkloadError(
                f"--hourly {self.hourly!r} must be numbers with commas between, e.g. 0.5,1,2"
            ) from error
        if not all(0.0 <= one < math.inf for one in factors):
            raise WorkloadError(f"--hourly {self.hourly!r} must be numbers from 0 on")
        mean = sum(factors) / len(factors)
        return tuple(one / mean for one in factors) if mean > 0.0 else factors

    def applied(self, workload: Workload) -> Workload:
        """The workload with the wanted deadline, budget and model."""
        tasks = tuple(self._task(task) for task in workload.tasks)
        return msgspec.structs.replace(workload, tasks=tasks)

    def _task(self, task: WorkloadTask) -> WorkloadTask:
        deadline_s, budget_usd = self.deadline_after_s, self.budget_usd
        steps = task.steps
        if self.model:
            steps = tuple(
                msgspec.structs.replace(step, model=self.model) if step.kind == "llm" else step
                for step in steps
            )
        return msgspec.structs.replace(
            task,
            steps=steps,
            deadline_after_s=task.deadline_after_s if deadline_s is None else deadline_s,
            budget_usd=task.budget_usd if budget_usd is None else budget_usd,
        )


def run_synth(agent: str, tasks: int, drawing: Drawing, out: Path, *, as_json: bool) -> None:
    """Generate tasks, write and describe them.

    Args:
        agent: Name of the agent.
        tasks: How many.
        drawing: How they arrive.
        out: File to write.
        as_json: Print JSON instead of tables.

    Raises:
        WorkloadError: An unknown agent, or numbers that make no sense.
    """
    drawing.check()
    fitted = agent_named(agent)
    if not drawing.model:
        raise WorkloadError("--model is empty; name the model that the calls are of")
    if not drawing.draws:
        raise WorkloadError("no arrivals: give --rate in tasks per second, or --arrivals FILE")
    made = agent_tasks(fitted, drawing.model, drawing.times_s(tasks), drawing.seed)
    _write(drawing.applied(made), out)
    _show(drawing.applied(made), None, out, as_json=as_json)


def run_describe(file: Path, form: str, mapping: str, *, as_json: bool) -> None:
    """Read a file and say what it is like.

    Raises:
        WorkloadError: It cannot be read.
    """
    read = import_workload(file, form, mapping)
    _show(read.workload, read.report, None, as_json=as_json)


def run_convert(
    file: tuple[Path, str, str],
    tasks: int | None,
    drawing: Drawing,
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Read a file, draw arrivals if wanted, write it as a workload, and report.

    Args:
        file: The file, its format, and the mapping of its columns.
        tasks: Tasks to draw; None takes each once.
        drawing: How they arrive.
        out: File to write.
        as_json: Print JSON instead of tables.

    Raises:
        WorkloadError: It cannot be read, or tasks are to be drawn without arrivals.
    """
    drawing.check()
    read = import_workload(*file)
    workload = read.workload
    if drawing.draws:
        times_s = drawing.times_s(tasks or len(workload.tasks))
        workload = with_arrivals(workload, times_s, drawing.seed)
    elif tasks is not None:
        raise WorkloadError("--tasks draws tasks anew: give --rate or --arrivals with it")
    workload = drawing.applied(workload)
    _write(workload, out)
    _show(workload, read.report, out, as_json=as_json)


def _write(workload: Workload, out: Path) -> None:
    if out.suffix not in {".parquet", ".jsonl"}:
        raise WorkloadError(f"--out {out} must end in .parquet or .jsonl")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_workload(workload, out)
    except OSError as error:
        raise WorkloadError(f"--out {out} cannot be written: {error.strerror}") from error


def _show(
    workload: Workload, report: ImportReport | None, out: Path | None, *, as_json: bool
) -> None:
    figures = describe(workload)
    if as_json:
        result = {
            "figures": msgspec.to_builtins(figures),
            "report": None if report is None else msgspec.to_builtins(report),
            "out": None if out is None else str(out),
        }
        print(msgspec.json.encode(result).decode())
        return
    console = Console(file=sys.stdout)
    if report is not None:
        print_grid(import_grid(report), console)
    print_grid(figures_grid(figures), console)
    if out is not None:
        console.out(f"wrote {out}", highlight=False)

"""Tables of a workload, and of what was missing in the file that it comes from."""

from steelyard.report.format import NONE, count, name, percent, significant
from steelyard.report.grid import Grid, columns
from steelyard.sim.describe import Quantiles, WorkloadFigures
from steelyard.store.imports.record import ImportReport


def figures_grid(figures: WorkloadFigures) -> Grid:
    """What is a workload like?

    Args:
        figures: Of the workload.

    Returns:
        One row per quantity.
    """
    quantities = (
        ("steps per task", figures.steps_per_task),
        ("prompt tokens", figures.prompt_tokens),
        ("output tokens", figures.output_tokens),
        ("tool time, s", figures.tool_s),
        ("tool CPU time, s", figures.cpu_s),
        ("tool memory, MiB", figures.memory_mib),
        ("person's gap, s", figures.human_s),
    )
    kinds = ", ".join(f"{count(n)} {kind}" for kind, n in figures.steps.items())
    told = [f"{count(figures.tasks)} tasks, {kinds} steps; {_arrivals(figures)}"]
    if figures.prefix_reuse_frac is not None:
        told.append(f"{percent(figures.prefix_reuse_frac)} of all prompt tokens repeat a prefix")
    if figures.cached_frac is not None:
        told.append(f"{percent(figures.cached_frac)} were read from a cache")
    told.append(f"{percent(figures.deadline_frac)} of the tasks have a deadline")
    for what, found in (
        ("agents", figures.agents),
        ("models", figures.models),
        ("tools", figures.tools),
    ):
        if found:
            listed = ", ".join(f"{name(one) or '(none)'} {count(n)}" for one, n in found.items())
            told.append(f"{what}: {listed}")
    return Grid(
        title=f"Workload {name(figures.workload)}",
        origin=None,
        columns=columns(("quantity",), ("median", "mean", "p95", "largest")),
        rows=tuple((what, *_cells(some)) for what, some in quantities if some is not None),
        note="\n".join(told),
    )


def _cells(some: Quantiles) -> tuple[str, ...]:
    return tuple(significant(one) for one in (some.p50, some.mean, some.p95, some.most))


def _arrivals(figures: WorkloadFigures) -> str:
    fitted = figures.arrivals
    if fitted is None:
        return "no arrivals (all at once)"
    swing = max(fitted.hourly) / (sum(fitted.hourly) / len(fitted.hourly))
    return (
        f"{significant(fitted.rate_per_s)} tasks/s, burstiness {significant(fitted.burstiness)}, "
        f"busiest hour {significant(swing)} x the mean"
    )


def import_grid(report: ImportReport) -> Grid:
    """What did a file lack, and what was assumed in its place?

    Args:
        report: Of the import.

    Returns:
        One row per thing that was missing or left out.
    """
    rows = [("missing", what, count(n)) for what, n in report.missing.items()]
    rows += [("left out", what, count(n)) for what, n in report.skipped.items()]
    return Grid(
        title=f"Read {name(report.source)} as {report.form}, {count(report.rows)} rows",
        origin=None,
        columns=columns(("", "what"), ("rows",)),
        rows=tuple(rows) or (("missing", "nothing", NONE),),
        note="\n".join(f"Assumed: {one}." for one in report.assumed),
    )

"""`steelyard workload ...`: the commands; `steelyard.cli.workload` does the work."""

from pathlib import Path
from typing import Annotated

import typer

workload_app = typer.Typer(
    help="Make, read and describe workloads: what arrives, and what each step uses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Out = Annotated[Path, typer.Option("--out", help="File to write: .parquet or .jsonl.")]
_Rate = Annotated[
    float | None, typer.Option("--rate", help="Tasks per second; draws new arrivals.")
]
_Burstiness = Annotated[
    float, typer.Option("--burstiness", min=0.0, help="Spread of the gaps; 1 is Poisson.")
]
_Hourly = Annotated[
    str, typer.Option("--hourly", help="Rate of each hour over the mean, e.g. 0.5,1,2.")
]
_Arrivals = Annotated[
    Path | None, typer.Option("--arrivals", help="File whose arrivals are replayed.")
]
_Model = Annotated[str, typer.Option("--model", help="Model of all calls.")]
_Deadline = Annotated[
    float | None, typer.Option("--deadline", help="Seconds from arrival to every deadline.")
]
_Budget = Annotated[float | None, typer.Option("--budget", help="Budget of every task, in USD.")]
_Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every draw.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_From = Annotated[
    str,
    typer.Option(
        "--from", help="steelyard, ledger, otlp, litellm, langfuse, requests or csv; else guessed."
    ),
]
_Map = Annotated[
    str, typer.Option("--map", help="Columns of a table: prompt_tokens=in_tok,start_s=ts,...")
]


@workload_app.command()
def synth(  # noqa: PLR0913, PLR0917 - one argument per option
    out: _Out = Path("workload.parquet"),
    agent: Annotated[
        str, typer.Option("--agent", help="coding, tau-bench-like or local.")
    ] = "coding",
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="How many.")] = 200,
    model: _Model = "llama-3.1-8b",
    rate: _Rate = None,
    burstiness: _Burstiness = 1.0,
    hourly: _Hourly = "",
    arrivals: _Arrivals = None,
    deadline: _Deadline = None,
    budget: _Budget = None,
    seed: _Seed = 1,
    as_json: _Json = False,
) -> None:
    """Generate tasks of an agent that was fitted to public traces."""
    from steelyard.cli.workload import Drawing, run_synth

    drawing = Drawing(rate, burstiness, hourly, arrivals, deadline, budget, model, seed)
    run_synth(agent, tasks, drawing, out, as_json=as_json)


@workload_app.command()
def describe(
    file: Annotated[Path, typer.Argument(help="Any file that `convert` reads.")],
    form: _From = "",
    mapping: _Map = "",
    as_json: _Json = False,
) -> None:
    """Say what a workload is like: tokens, prefixes, tools, arrivals, and what is missing."""
    from steelyard.cli.workload import run_describe

    run_describe(file, form, mapping, as_json=as_json)


@workload_app.command()
def convert(  # noqa: PLR0913, PLR0917 - one argument per option
    file: Annotated[Path, typer.Argument(help="Traces or logs of your own.")],
    out: _Out = Path("workload.parquet"),
    form: _From = "",
    mapping: _Map = "",
    tasks: Annotated[
        int | None, typer.Option("--tasks", min=1, help="Draw so many; needs new arrivals.")
    ] = None,
    model: _Model = "",
    rate: _Rate = None,
    burstiness: _Burstiness = 1.0,
    hourly: _Hourly = "",
    arrivals: _Arrivals = None,
    deadline: _Deadline = None,
    budget: _Budget = None,
    seed: _Seed = 1,
    as_json: _Json = False,
) -> None:
    """Turn traces and logs into a workload file, and report what was missing and assumed."""
    from steelyard.cli.workload import Drawing, run_convert

    drawing = Drawing(rate, burstiness, hourly, arrivals, deadline, budget, model, seed)
    run_convert((file, form, mapping), tasks, drawing, out, as_json=as_json)

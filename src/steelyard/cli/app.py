"""The program `steelyard`: commands, and the one place where errors become a line and a code."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import steelyard
from steelyard.cli import catalog, fleet_app, planning_app
from steelyard.cli.keys_app import keys_app
from steelyard.cli.planning_app import JsonOption, PlanConfigOption
from steelyard.cli.tasks_app import tasks_app
from steelyard.cli.traces_app import traces_app
from steelyard.cli.workload_app import workload_app
from steelyard.errors import ConfigError, SteelyardError

app = typer.Typer(
    name="steelyard",
    help="Run, plan, simulate and report multi-step AI agents on mixed fleets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_StoreOption = Annotated[
    str,
    typer.Option("--store", help="SQLite file, or postgresql:// URL, instead of [store]."),
]
ConfigOption = Annotated[Path, typer.Option("--config", help="TOML file; see the example.")]


def main() -> None:
    """Run the program; a known error ends it with one line and exit code 2."""
    try:
        _refuse_other_bytes(sys.argv[1:])
        app()
    except SteelyardError as error:
        told = " ".join(str(error).split())
        print(f"steelyard: {told}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone, e.g. `steelyard ... | head`.
        sys.stderr.close()
        sys.exit(141)


def _refuse_other_bytes(arguments: list[str]) -> None:
    """Arguments go into JSON, SQLite and reports, which are UTF-8; refuse others at the door."""
    for number, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"argument {number}, {argument[:80]!a}, is not UTF-8; write it in UTF-8, or give "
                "the file another name"
            ) from error


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"steelyard {steelyard.__version__}")
        raise typer.Exit


app.add_typer(catalog.app)
app.add_typer(keys_app, name="keys")
app.add_typer(tasks_app, name="tasks")
app.add_typer(traces_app, name="traces")
app.add_typer(workload_app, name="workload")


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for what it writes.")] = Path(
        "demo"
    ),
    config: Annotated[
        Path | None, typer.Option("--config", help="Pools of your own beside the local ones.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run real agents on a real model and close the loop: run, ledger, plan, simulate."""
    from steelyard.cli.demo.command import run_demo

    run_demo(folder, config, as_json=as_json)


@app.command()
def up(
    config: ConfigOption = Path("steelyard.toml"),
    store: _StoreOption = "",
    plan: Annotated[
        Path | None, typer.Option("--plan", help="The plan in force, for the dashboard.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, with its address, once it serves."),
    ] = False,
) -> None:
    """Serve the OpenAI-compatible gateway, and the dashboard at /, until stopped."""
    from steelyard.cli.up import run_up

    run_up(config, store, plan, as_json=as_json)


@app.command()
def reload(
    config: ConfigOption = Path("steelyard.toml"),
    timeout: Annotated[
        str, typer.Option("--timeout", help="Wait so long for pools to start.")
    ] = "2m",
    as_json: JsonOption = False,
) -> None:
    """Let the gateway of a configuration read it anew; no request is lost."""
    from steelyard.cli.limits import seconds
    from steelyard.cli.reload import run_reload

    run_reload(config, seconds("--timeout", timeout, may_be_none=True), as_json=as_json)


@app.command()
def upgrade(
    config: ConfigOption = Path("steelyard.toml"),
    store: _StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let an older event log be written as this version does; older versions then refuse it."""
    from steelyard.cli.upgrade import run_upgrade

    run_upgrade(config, store, as_json=as_json)


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter per option
    program: Annotated[
        str, typer.Argument(help="FILE.py:AGENT runs one task; FILE.py serves all agents in it.")
    ],
    arguments: Annotated[
        str, typer.Option("--input", help="The agent's arguments by name, a JSON object.")
    ] = "{}",
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="Time for the task: 60s, 5m, 2h.")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option("--budget", help="What the task may cost, in USD.")
    ] = None,
    task_id: Annotated[
        str | None,
        typer.Option("--id", help="Id of the task; one that is in the store already goes on."),
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Higher ones are taken first.")] = 0,
    key: Annotated[
        str, typer.Option("--key", help="A second task with the same key is the first one.")
    ] = "",
    lease: Annotated[
        str | None,
        typer.Option(
            "--lease", help="Others take over when this worker is silent for so long; 10s."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file; without one, local pools alone.")
    ] = None,
    store: _StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run an agent as a durable task: after a crash, the same --id goes on where it was."""
    from steelyard.cli.run import Wanted, run_program

    wanted = Wanted(
        arguments=arguments,
        deadline=deadline,
        budget_usd=budget_usd,
        task_id=task_id,
        priority=priority,
        key=key,
        lease=lease,
    )
    if not run_program(program, wanted, config, store, as_json=as_json):
        raise typer.Exit(1)


app.command()(planning_app.plan)


app.command()(planning_app.simulate)


@app.command()
def measure(  # noqa: PLR0913, PLR0917 - one argument per option
    target: Annotated[str, typer.Argument(help="Base URL up to /v1, or `local`.")],
    model: Annotated[str, typer.Option("--model", help="The target's name of the model.")] = "",
    plan_model: Annotated[
        str, typer.Option("--as-model", help="The name that plans use for it, if another.")
    ] = "",
    offering: Annotated[
        str, typer.Option("--offering", help="Machine that the target has to itself; for plans.")
    ] = "",
    engine: Annotated[
        str, typer.Option("--engine", help="Engine and version behind it; the library, if local.")
    ] = "",
    precision: Annotated[
        Literal["auto", "native", "f32", "int8"],
        typer.Option("--precision", help="Numbers that the engine computes in; local only."),
    ] = "auto",
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="Environment variable that holds the key.")
    ] = "",
    context_tokens: Annotated[
        int, typer.Option("--context-tokens", min=0, help="The model's limit, if known.")
    ] = 0,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Engines measured together; local only.")
    ] = 1,
    prompts: Annotated[
        str, typer.Option("--prompts", help="Prompt lengths in tokens, e.g. 128,512,2048.")
    ] = "",
    cached: Annotated[
        str, typer.Option("--cached", help="Cached shares of the longest prompt, e.g. 0.5,0.9.")
    ] = "",
    loads: Annotated[str, typer.Option("--loads", help="Streams at once, e.g. 1,4,16.")] = "",
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", min=1, help="Tokens per answer.")
    ] = None,
    decode_prompt: Annotated[
        int | None,
        typer.Option("--decode-prompt", min=0, help="Prompt tokens while decode is timed."),
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option("--repetitions", min=1, help="Of every setting.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="A rough look, in few requests.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Time chat calls, not completions.")] = False,
    out: Annotated[Path, typer.Option("--out", help="File for the figures.")] = Path(
        "figures.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Profile a live pool: fit its curves, say how sure they are, write figures for plans."""
    from steelyard.cli.measure import MeasureRequest, run_measure
    from steelyard.cli.profile_options import profile_plan

    plan = profile_plan(
        (prompts, cached, loads),
        (output_tokens, decode_prompt),
        repetitions,
        short=short,
        chat=chat,
    )
    run_measure(
        MeasureRequest(
            target=target,
            model=model,
            plan_model=plan_model,
            api_key_env=api_key_env,
            offering=offering,
            engine=engine,
            precision=precision,
            context_tokens=context_tokens,
            replicas=replicas,
            out=out,
            as_json=as_json,
        ),
        plan,
    )


app.command()(planning_app.export)
app.command()(fleet_app.apply)
app.command()(fleet_app.replan)


@app.command()
def report(  # noqa: PLR0913, PLR0917 - one argument per option
    source: Annotated[
        str,
        typer.Argument(
            metavar="LOG|STORE|PLAN|SIMULATION",
            help="Event log or store of a run, plan.json, or output of `simulate --json`.",
        ),
    ],
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="A plan beside it; its rules price the run, too.")
    ] = None,
    simulation: Annotated[
        Path | None, typer.Option("--simulation", help="Output of `simulate --json` beside it.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Another run, plan or simulation; repeatable."),
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option("--marks", help="JSON with moments to be marked in the plot of providers."),
    ] = None,
    growth_factor: Annotated[
        float,
        typer.Option("--growth", help="Price the run's demand at this many times its rate."),
    ] = 1.0,
    config: PlanConfigOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File, .html or .md; else Markdown is shown.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Report on a run, a plan or a simulation: cost against baselines, Arm, energy, SLOs."""
    from steelyard.cli.plan import plan_settings
    from steelyard.cli.report import run_report
    from steelyard.cli.report_parts import ReportRequest
    from steelyard.cli.report_sources import shown

    run_report(
        ReportRequest(
            source=source,
            plan=plan_file,
            simulation=simulation,
            against=tuple(against or ()),
            growth_factor=growth_factor,
            out=out,
            as_json=as_json,
            command=shown(shlex.join(["steelyard", *sys.argv[1:]])),
            marks=marks,
        ),
        plan_settings(config),
    )


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file whose store and pools are checked.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check engines, processor, sandbox, store, port, clock and pools; say how to cure."""
    from steelyard.cli.doctor import run_doctor

    if not run_doctor(config, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def top(
    url: Annotated[str, typer.Option("--url", help="Address of the gateway.")] = (
        "http://127.0.0.1:8080"
    ),
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="Environment variable that holds the key.")
    ] = "",
    every_s: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch a running gateway: pools, load, tasks and cost; q or Ctrl-C ends it."""
    from steelyard.cli.top import TopRequest, run_top

    run_top(
        TopRequest(
            url=url, api_key_env=api_key_env, every_s=every_s, once=once or as_json, as_json=as_json
        )
    )

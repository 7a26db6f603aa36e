"""`steelyard tasks ...`: the commands; `steelyard.cli.tasks` does the work."""

from typing import Annotated

import typer

tasks_app = typer.Typer(
    help="Look at the tasks of a store, and send them word.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Store = Annotated[
    str, typer.Option("--store", help="SQLite file, or postgresql:// URL, of the tasks.")
]
_TaskId = Annotated[str, typer.Argument(help="Id of the task.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DEFAULT_STORE = "steelyard.db"


@tasks_app.command("list")
def list_tasks(
    state: Annotated[
        str,
        typer.Option(
            "--state",
            help="Only those: queued, running, waiting, succeeded, failed or cancelled.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    store: _Store = _DEFAULT_STORE,
    as_json: _Json = False,
) -> None:
    """Which tasks are there, the newest first?"""
    from steelyard.cli.tasks import run_list

    run_list(store, state, limit, as_json=as_json)


@tasks_app.command()
def show(task_id: _TaskId, store: _Store = _DEFAULT_STORE, as_json: _Json = False) -> None:
    """What has a task done so far, and what did it cost?"""
    from steelyard.cli.tasks import run_show

    run_show(store, task_id, as_json=as_json)


@tasks_app.command()
def watch(task_id: _TaskId, store: _Store = _DEFAULT_STORE, as_json: _Json = False) -> None:
    """Print what a task does until it ends."""
    from steelyard.cli.tasks import run_watch

    run_watch(store, task_id, as_json=as_json)


@tasks_app.command()
def cancel(task_id: _TaskId, store: _Store = _DEFAULT_STORE, as_json: _Json = False) -> None:
    """End a task and its children; a running step is stopped."""
    from steelyard.cli.tasks import run_cancel

    run_cancel(store, task_id, as_json=as_json)


@tasks_app.command()
def signal(
    task_id: _TaskId,
    name: Annotated[str, typer.Argument(help="Name of the signal.")],
    value: Annotated[str, typer.Argument(help="Its value, JSON.")] = "null",
    store: _Store = _DEFAULT_STORE,
    as_json: _Json = False,
) -> None:
    """Send a value to a task that waits for it."""
    from steelyard.cli.tasks import run_signal

    run_signal(store, task_id, name, value, as_json=as_json)


@tasks_app.command()
def retry(  # noqa: PLR0913, PLR0917 - one parameter per option
    task_id: _TaskId,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", help="Time from now: 60s, 5m, 2h; as long as at first without."),
    ] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(
            "--budget", help="What the task may cost in USD, with what it has cost; as at first."
        ),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Do all of it again, as a new task.")
    ] = False,
    new_id: Annotated[
        str, typer.Option("--id", help="Id of the new task, with --from-start.")
    ] = "",
    store: _Store = _DEFAULT_STORE,
    as_json: _Json = False,
) -> None:
    """Let a failed or cancelled task go on: what has a result keeps it, the rest runs."""
    from steelyard.cli.limits import limits_of
    from steelyard.cli.tasks import run_again, run_retry

    limits = limits_of(deadline, budget_usd)
    if from_start:
        run_again(store, task_id, new_id, limits, as_json=as_json)
    else:
        run_retry(store, task_id, limits, as_json=as_json)

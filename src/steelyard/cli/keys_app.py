"""`steelyard keys ...`: the commands; `steelyard.cli.keys` does the work."""

from typing import Annotated

import typer

keys_app = typer.Typer(
    help="Make keys for agents, teams and tasks, look at what they spend, and take them back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Store = Annotated[
    str, typer.Option("--store", help="SQLite file, or postgresql:// URL, of the gateway.")
]
_KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, or its name.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DEFAULT_STORE = "steelyard.db"


@keys_app.command()
def create(  # noqa: PLR0913, PLR0917 - one parameter per option
    name: Annotated[str, typer.Argument(help="What people call it.")],
    agent: Annotated[str, typer.Option("--agent", help="All its steps are this agent's.")] = "",
    team: Annotated[str, typer.Option("--team", help="Whose it is; for people.")] = "",
    task: Annotated[
        str, typer.Option("--task", help="Id of the one task that all its requests belong to.")
    ] = "",
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="Deadline of that task, from now: 60s, 2h.")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option("--budget", help="What it may cost altogether, in USD.")
    ] = None,
    per_day_usd: Annotated[
        float | None, typer.Option("--budget-per-day", help="In one UTC day, in USD.")
    ] = None,
    per_month_usd: Annotated[
        float | None, typer.Option("--budget-per-month", help="In one UTC month, in USD.")
    ] = None,
    requests_per_s: Annotated[
        float | None, typer.Option("--requests-per-s", help="Requests per second.")
    ] = None,
    tokens_per_min: Annotated[
        float | None, typer.Option("--tokens-per-min", help="Tokens in and out per minute.")
    ] = None,
    pools: Annotated[
        list[str] | None, typer.Option("--pool", help="Pool that it may use; repeatable.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Model that it may ask for; repeatable.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="Valid for so long: 12h, 30d; or until 2027-01-01T00:00Z."),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="It also opens metrics and tasks.")
    ] = False,
    store: _Store = _DEFAULT_STORE,
    as_json: _Json = False,
) -> None:
    """Make a key. It is printed once and kept nowhere: the store has its hash."""
    from steelyard.cli.keys import NewKey, run_create

    wanted = NewKey(
        name=name,
        agent=agent,
        team=team,
        task_id=task,
        deadline=deadline,
        budget_usd=budget_usd,
        budget_usd_per_day=per_day_usd,
        budget_usd_per_month=per_month_usd,
        requests_per_s=requests_per_s,
        tokens_per_min=tokens_per_min,
        pools=tuple(pools or ()),
        models=tuple(models or ()),
        expires=expires,
        control=control,
    )
    run_create(store, wanted, as_json=as_json)


@keys_app.command("list")
def list_keys(store: _Store = _DEFAULT_STORE, as_json: _Json = False) -> None:
    """Which keys are there, and what have they spent?"""
    from steelyard.cli.keys import run_list

    run_list(store, as_json=as_json)


@keys_app.command()
def show(key: _KeyId, store: _Store = _DEFAULT_STORE, as_json: _Json = False) -> None:
    """What does a key allow, and what did it use, day by day?"""
    from steelyard.cli.keys import run_show

    run_show(store, key, as_json=as_json)


@keys_app.command()
def revoke(key: _KeyId, store: _Store = _DEFAULT_STORE, as_json: _Json = False) -> None:
    """Take a key back; when this returns, no gateway takes it any more."""
    from steelyard.cli.keys import run_revoke

    run_revoke(store, key, as_json=as_json)


@keys_app.command()
def rotate(
    key: _KeyId,
    grace: Annotated[
        str, typer.Option("--grace", help="For so long the old one is valid, too: 1h, 0s.")
    ] = "1h",
    store: _Store = _DEFAULT_STORE,
    as_json: _Json = False,
) -> None:
    """Give a key a new secret; its id, terms and spending stay."""
    from steelyard.cli.keys import run_rotate

    run_rotate(store, key, grace, as_json=as_json)

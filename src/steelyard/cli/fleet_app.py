"""`steelyard apply` and `steelyard replan`: their options; the modules of these names do it."""

from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.planning_app import PlanConfigOption

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Out = Annotated[
    Path, typer.Option("--out", help="Folder of the tool's files and of the state in force.")
]
_RayAddress = Annotated[
    str, typer.Option("--ray-address", help="The Ray cluster: auto, or host:port of its head.")
]


def apply(  # noqa: PLR0913, PLR0917 - one parameter per option
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json.")],
    target: Annotated[str, typer.Option("--to", help="ray, skypilot or kubernetes.")],
    folder: _Out = Path("fleet"),
    config: PlanConfigOption = None,
    ray_address: _RayAddress = "auto",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only show what would change.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Make what is rented follow a plan; shows the diff, and changes nothing without --yes."""
    from steelyard.cli.apply import ApplyRequest, run_apply, target_named
    from steelyard.cli.plan import plan_settings

    asked = ApplyRequest(
        target=target_named(target),
        folder=folder,
        ray_address=ray_address,
        yes=yes,
        as_json=as_json,
    )
    run_apply(plan_file, asked, plan_settings(config))


def replan(  # noqa: PLR0913, PLR0917 - one parameter per option
    plan_file: Annotated[
        Path, typer.Option("--plan", help="The plan in force; written with --yes.")
    ] = Path("plan.json"),
    store: Annotated[
        str, typer.Option("--store", help="SQLite file, or postgresql:// URL, of the ledger.")
    ] = "steelyard.db",
    every: Annotated[str, typer.Option("--every", help="Plan anew so often.")] = "1h",
    window: Annotated[
        str, typer.Option("--window", help="The demand is what came in the last ...")
    ] = "24h",
    saves_percent: Annotated[
        float,
        typer.Option(
            "--saves", min=0.0, max=100.0, help="A change must save more than this, in percent."
        ),
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Plan once and end.")] = False,
    target: Annotated[
        str, typer.Option("--to", help="Make ray, skypilot or kubernetes follow, with --yes.")
    ] = "",
    folder: _Out = Path("fleet"),
    config: PlanConfigOption = None,
    ray_address: _RayAddress = "auto",
    yes: Annotated[
        bool, typer.Option("--yes", help="Put plans that are worth it in force.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Plan anew from the ledger's demand, again and again; shows the diff before any change."""
    from steelyard.cli.apply import ApplyRequest, target_named
    from steelyard.cli.limits import seconds
    from steelyard.cli.plan import plan_settings
    from steelyard.cli.replan import ReplanRequest, run_replan

    follow = None
    if target:
        follow = ApplyRequest(
            target=target_named(target), folder=folder, ray_address=ray_address, yes=yes
        )
    asked = ReplanRequest(
        store=store,
        plan=plan_file,
        every_s=seconds("--every", every, may_be_none=True),
        window_s=seconds("--window", window),
        least_saving_frac=saves_percent / 100.0,
        once=once,
        yes=yes,
        apply=follow,
        as_json=as_json,
    )
    run_replan(asked, plan_settings(config))

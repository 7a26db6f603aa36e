"""`steelyard plan`, `simulate` and `export`: their options; the modules of these names do it."""

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PlanConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file of the plan: rules, what is allowed.")
]
FiguresOption = Annotated[
    list[Path] | None, typer.Option("--figures", help="File of `steelyard measure`; repeatable.")
]
PredictedOption = Annotated[
    bool, typer.Option("--allow-predicted", help="Use estimates where nothing was measured.")
]


def plan(  # noqa: PLR0913, PLR0917 - one argument per option
    workload: Annotated[
        Path | None, typer.Option("--workload", help="Workload file (.parquet, .jsonl).")
    ] = None,
    demand: Annotated[
        Path | None, typer.Option("--demand", help="Offers, buckets and capacities as JSON.")
    ] = None,
    config: PlanConfigOption = None,
    growth_factor: Annotated[
        float | None, typer.Option("--growth", help="Plan for this many times the given rate.")
    ] = None,
    figures: FiguresOption = None,
    allow_predicted: PredictedOption = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the plan there, too.")] = None,
    plots: Annotated[
        Path | None,
        typer.Option("--plots", help="Folder for plots over load, latency and a day, SVG."),
    ] = None,
    fleet_by_hour: Annotated[
        Path | None,
        typer.Option(
            "--fleet-by-hour", help="Plan each hour of a day; write the fleet for `simulate`, JSON."
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Plan anew for other prices, loads, caches.")
    ] = False,
    simulated_headroom: Annotated[
        bool,
        typer.Option(
            "--simulated-headroom", help="Raise headroom until a simulation keeps the limits."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest fleet for a workload, and prove how close to the optimum it is."""
    from steelyard.cli.plan import PlanRequest, run_plan

    run_plan(
        PlanRequest(
            workload=workload,
            demand=demand,
            config=config,
            growth_factor=growth_factor,
            figures=tuple(figures or ()),
            allow_predicted=allow_predicted,
            out=out,
            plots=plots,
            fleet_by_hour=fleet_by_hour,
            sensitivity=sensitivity,
            simulated_headroom=simulated_headroom,
            as_json=as_json,
        )
    )


def simulate(  # noqa: PLR0913, PLR0917 - one argument per option
    workload: Annotated[
        Path, typer.Option("--workload", help="Workload file, or any that `workload` reads.")
    ],
    fleet: Annotated[
        Path,
        typer.Option(
            "--fleet", "--plan", help="plan.json of `steelyard plan`, or a TOML file with pools."
        ),
    ],
    policy: Annotated[str, typer.Option("--policy", help="Policy's name.")] = "cheapest_feasible",
    compare: Annotated[
        str, typer.Option("--compare", help="Other policies, comma-separated; `all` for all.")
    ] = "",
    tasks: Annotated[
        int | None,
        typer.Option("--tasks", min=1, help="Draw so many, at the plan's rate; else as recorded."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Tasks per second of drawn tasks.")
    ] = None,
    outage: Annotated[
        list[str] | None,
        typer.Option("--outage", help="PROVIDER_OR_POOL@START:DURATION, aws@600s:5m; repeatable."),
    ] = None,
    renting: Annotated[
        Path | None,
        typer.Option("--renting", help="TOML: starts, preemption, scaling, prices by pool."),
    ] = None,
    first_hour: Annotated[
        float,
        typer.Option("--first-hour", min=0.0, max=24.0, help="Hour of the day at which it begins."),
    ] = 0.0,
    patience: Annotated[
        str,
        typer.Option("--patience", help="How long steps wait for pools that are down, as live."),
    ] = "20s",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for plots, SVG.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every draw.")] = 1,
    config: PlanConfigOption = None,
    figures: FiguresOption = None,
    allow_predicted: PredictedOption = False,
    prefill_chunk_tokens: Annotated[
        int | None,
        typer.Option(
            "--prefill-chunk", min=1, help="Engines cut prompts to so many tokens; else whole."
        ),
    ] = None,
    kv_tokens: Annotated[
        int | None,
        typer.Option("--kv-tokens", min=1, help="Tokens of key-value memory of each replica."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a workload through a fleet on a virtual clock, under one policy or several."""
    from steelyard.cli.plan import plan_settings
    from steelyard.cli.simulate import SimulateRequest, run_simulate
    from steelyard.sim import Serving

    settings = plan_settings(config, tuple(figures or ()), allow_predicted=allow_predicted)
    run_simulate(
        SimulateRequest(
            workload=workload,
            fleet=fleet,
            policy=policy,
            compare=compare,
            serving=Serving(prefill_chunk_tokens=prefill_chunk_tokens, kv_tokens=kv_tokens),
            tasks=tasks,
            rate_per_s=rate,
            seed=seed,
            outages=tuple(outage or ()),
            renting=renting,
            first_hour=first_hour,
            patience=patience,
            out=out,
            as_json=as_json,
        ),
        settings,
    )


def export(
    plan_file: Annotated[
        Path, typer.Argument(metavar="PLAN", help="plan.json of `steelyard plan --out`.")
    ],
    target: Annotated[str, typer.Option("--to", help="skypilot, karpenter, kubernetes or ray.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("export"),
    config: PlanConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a plan's machines as files of the tools that rent them."""
    from steelyard.cli.export import run_export
    from steelyard.cli.plan import plan_settings

    run_export(plan_file, target, folder, plan_settings(config), as_json=as_json)

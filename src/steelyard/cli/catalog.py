"""`steelyard catalog`: what can be rented, how fast it is, and where each number comes from."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    # The command line starts without them; only their names are needed here.
    from steelyard.domain.offering import Offering
    from steelyard.report.grid import Grid

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
OfferingArgument = Annotated[
    str, typer.Argument(metavar="OFFERING", help="PROVIDER/TYPE, or the full name.")
]

app = typer.Typer(
    name="catalog",
    help="What can be rented, how fast it is, and how that is known.",
    no_args_is_help=True,
)


@app.command("list")
def list_offerings(  # noqa: PLR0913, PLR0917 - one argument per option
    provider: Annotated[str, typer.Option("--provider", help="aws, azure or gcp.")] = "",
    arch: Annotated[str, typer.Option("--arch", help="arm64 or x86_64.")] = "",
    hardware: Annotated[str, typer.Option("--hardware", help="arm, x86 or gpu.")] = "",
    model: Annotated[str, typer.Option("--model", help="Only with figures for this model.")] = "",
    max_price: Annotated[
        float | None, typer.Option("--max-price", help="Highest price, USD per hour.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Rows of the table; 0 for all.")
    ] = 40,
    as_json: JsonOption = False,
) -> None:
    """List offerings, cheapest first; --json lists all that match."""
    from steelyard.config.catalog_query import OfferingFilter, find_offerings, models_on
    from steelyard.config.catalog_table import load_catalog
    from steelyard.report.catalog_grids import offering_grid

    catalog = load_catalog()
    wanted = OfferingFilter(
        provider=provider,
        arch=arch,
        hardware=hardware,
        model=model,
        max_usd_per_hour=max_price,
    )
    found = find_offerings(catalog, wanted)
    if as_json:
        _print_json(
            {"offerings": [_plain(one) | {"models": models_on(catalog, one)} for one in found]}
        )
        return
    if not found:
        print("no offering matches all filters at once", file=sys.stderr)
    _print_grids(offering_grid(catalog, found, limit))


@app.command()
def show(offering: OfferingArgument, as_json: JsonOption = False) -> None:
    """Show one offering: price, size, tool speed, and a curve per model."""
    from steelyard.config.catalog_table import hardware_key, load_catalog
    from steelyard.report.catalog_grids import curve_grid, offering_grid

    catalog = load_catalog()
    found = catalog.offering(offering)
    tools = catalog.tool_fits.get(hardware_key(found))
    if as_json:
        fits = catalog.llm_fits.get(hardware_key(found), ())
        _print_json(_plain(found) | {"llm_fits": fits, "tool_fit": tools})
        return
    _print_grids(offering_grid(catalog, (found,), 0), curve_grid(catalog, found))
    if tools is not None:
        print(
            f"Tools: each of {tools.curve.cores:g} vCPUs does {tools.curve.relative_speed:.2f} of"
            f" the reference core's work, all busy ({tools.quality}, {tools.n_proxies} programs)."
        )


@app.command()
def explain(
    offering: OfferingArgument,
    model: Annotated[str, typer.Option("--model", help="Only this model's curves.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show where each number of an offering comes from, and what is missing."""
    from steelyard.config.catalog_explain import explain_offering
    from steelyard.config.catalog_table import load_catalog
    from steelyard.config.predicted_fits import with_predictions
    from steelyard.report.catalog_grids import explain_grid

    catalog = with_predictions(load_catalog())
    found = catalog.offering(offering)
    numbers = explain_offering(catalog, found, model)
    if as_json:
        _print_json({"offering": found.name, "numbers": numbers})
        return
    _print_grids(explain_grid(found, numbers))


@app.command()
def refresh(
    source: Annotated[
        Path | None,
        typer.Option("--from", help="SQLite database in the schema of sparecores-data."),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option("--region", help="PROVIDER/REGION beside the catalogue's; repeatable."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Rows of the table; 0 for all.")
    ] = 40,
    as_json: JsonOption = False,
) -> None:
    """Read newer prices into the user's cache; without --from, download them."""
    from steelyard.config.catalog_table import hardware_key, load_catalog
    from steelyard.config.price_refresh import downloaded_prices, read_prices, write_refreshed
    from steelyard.config.refreshed_catalog import price_changes
    from steelyard.report.catalog_grids import price_grid

    catalog = load_catalog(with_spot=True)
    known = frozenset(hardware_key(one) for one in catalog.offerings)
    regions = {(one.provider, one.region) for one in catalog.offerings}
    for place in region or []:
        regions.add(_region(place))
    path = downloaded_prices() if source is None else source
    rows = read_prices(path, known, frozenset(regions))
    changes = price_changes(catalog, rows)
    kept = write_refreshed(rows)
    if as_json:
        _print_json({"prices": len(rows), "file": str(kept), "changes": changes})
        return
    _print_grids(price_grid(changes, limit))
    new = sum(one.old_usd_per_hour is None for one in changes)
    print(
        f"{len(rows):,} prices read: {len(changes) - new:,} changed, {new:,} new offerings. Kept in"
        f" {kept}; the packaged table is untouched. Plans take them with refreshed_prices = true"
        " under [allowed]."
    )


def _region(place: str) -> tuple[str, str]:
    from steelyard.errors import ConfigError

    provider, slash, region = place.partition("/")
    if not (provider and slash and region):
        raise ConfigError(f"--region {place!r} is not PROVIDER/REGION, such as aws/eu-central-1")
    return provider, region


def _plain(offering: "Offering") -> dict[str, Any]:
    machine = offering.instance_type
    return {
        "name": offering.name,
        "provider": offering.provider,
        "region": offering.region,
        "instance_type": machine.name,
        "capacity_type": offering.capacity_type,
        "arch": machine.arch,
        "hardware": machine.hardware,
        "vcpus": machine.vcpus,
        "memory_bytes": machine.memory_bytes,
        "accelerator": machine.accelerator,
        "accelerator_count": machine.accelerator_count,
        "usd_per_hour": offering.usd_per_hour,
        "price_date": offering.price_date,
        "price_source": offering.price_source,
    }


def _print_json(value: dict[str, Any]) -> None:
    import msgspec

    print(msgspec.json.encode(value).decode())


def _print_grids(*grids: "Grid") -> None:
    from rich.console import Console

    from steelyard.report.tables import print_grid

    console = Console(file=sys.stdout)
    for grid in grids:
        print_grid(grid, console)

"""Figures that `steelyard measure` wrote: read for a pool, or into the planner's catalogue."""

from pathlib import Path
from typing import Literal

import msgspec

from steelyard.config.catalog_table import Catalog, LlmFit, Quality, hardware_key
from steelyard.config.unknown_keys import nearest
from steelyard.domain.pool import LlmCurve
from steelyard.errors import ConfigError, FigureError

FORMAT: Literal["steelyard-figures-1"] = "steelyard-figures-1"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number; model, machine, source and date stand in the file's head.

    Attributes:
        name: What it is.
        value: The number.
        unit: Its unit.
        points: Number of settings it was fitted from, or of requests in a median.
        error_frac: Relative leave-one-out error, or spread of the repetitions; None where neither
            is known.
    """

    name: str
    value: float
    unit: str
    points: int
    error_frac: float | None


class FiguresFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one model on one pool.

    Attributes:
        format: Version of this form.
        model: Model, by the name that plans use.
        target: What was measured: the base URL, or `local`.
        engine: Engine and version, where known.
        machine: The machine that measured; it is the pool's own for `local`.
        offering: Catalogue name of the machine that the pool has to itself; empty where unknown.
        replicas: Replicas that were measured together.
        date: Day, ISO 8601.
        source: How it was measured: the command, prompts, loads and repetitions.
        curve: What plans and pools take.
        quality: Whether the fit can be trusted.
        doubts: Why not, one phrase each.
        loo_error_frac: Leave-one-out error of the gap between tokens.
        itl_points: Loads fitted.
        prefill_points: Prompt lengths fitted.
        prompt_tokens: Prompt length of the decode measurement.
        output_tokens: Tokens asked for in it.
        longest_tokens: Longest prompt plus answer measured.
        figures: Every number, with unit, points and error.
    """

    format: Literal["steelyard-figures-1"]
    model: str
    target: str
    engine: str
    machine: str
    offering: str
    replicas: int
    date: str
    source: str
    curve: LlmCurve
    quality: Quality
    doubts: tuple[str, ...]
    loo_error_frac: float | None
    itl_points: int
    prefill_points: int
    prompt_tokens: int
    output_tokens: int
    longest_tokens: int
    figures: tuple[Figure, ...]


def read_figures(path: Path) -> FiguresFile:
    """What was measured?

    Args:
        path: A file of `steelyard measure`.

    Raises:
        ConfigError: It cannot be read, or is no figures file.
        FigureError: A figure is out of range.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=FiguresFile)
    except OSError as error:
        raise ConfigError(f"figures {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"figures {path} is no file of `steelyard measure`: {error}; measure again"
        ) from error
    curve = found.curve
    sizes = (curve.prefill_s_per_token, curve.itl_base_s + curve.itl_slope_s)
    rest = (curve.ttft_floor_s, curve.itl_base_s, curve.itl_slope_s)
    caps = (curve.concurrency_cap, curve.context_tokens)
    if min(sizes) <= 0.0 or min(rest) < 0.0 or min(caps) < 1:
        raise FigureError(f"figures {path}: the curve {curve} is impossible; measure again")
    return found


def write_figures(path: Path, figures: FiguresFile) -> None:
    """Write a figures file.

    Args:
        path: Where to; replaced if it exists.
        figures: What was measured.

    Raises:
        ConfigError: It cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(figures), indent=2)
    try:
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise ConfigError(f"figures {path} cannot be written: {error.strerror}") from error


def pool_curve(pool: str, path: Path, models: tuple[str, ...]) -> tuple[str, LlmCurve]:
    """Which model's curve does a pool's figures file hold?

    Args:
        pool: Name of the pool, for messages.
        path: The file.
        models: Models that the pool serves.

    Returns:
        Model and curve.

    Raises:
        ConfigError: The file is of another model, or of several replicas together.
    """
    found = read_figures(path)
    if found.model not in models:
        raise ConfigError(
            f"pools.{pool}.figures {path} is of model {found.model!r}, which the pool does not"
            f" serve; {nearest(found.model, list(models))}"
        )
    if found.replicas != 1:
        raise ConfigError(
            f"pools.{pool}.figures {path} is of {found.replicas} replicas together; measure one"
        )
    return found.model, found.curve


def with_figures(catalog: Catalog, paths: tuple[str, ...]) -> Catalog:
    """The catalogue with figures of the user's own, which count before published ones.

    Args:
        catalog: Published figures.
        paths: Files of `steelyard measure`.

    Returns:
        The catalogue.

    Raises:
        ConfigError: A file is wrong, names no offering, or measures a pair measured before.
    """
    fits = dict(catalog.llm_fits)
    seen: dict[tuple[str, str, str], str] = {}
    for path in paths:
        found = read_figures(Path(path))
        if not found.offering:
            raise ConfigError(
                f"figures {path} names no offering, so that no plan can price it; measure with"
                " `steelyard measure --offering PROVIDER/TYPE`"
            )
        key = hardware_key(catalog.offering(found.offering))
        if (*key, found.model) in seen:
            raise ConfigError(
                f"figures {path} and {seen[*key, found.model]} both measure {found.model} on"
                f" {'/'.join(key)}; give one"
            )
        seen[*key, found.model] = path
        fits[key] = (*fits.get(key, ()), _own_fit(found))
    return msgspec.structs.replace(catalog, llm_fits=fits)


def _own_fit(found: FiguresFile) -> LlmFit:
    return LlmFit(
        curve=found.curve,
        model=found.model,
        engine=found.engine,
        prompt_tokens=max(1, found.prompt_tokens),
        output_tokens=found.output_tokens,
        points=found.itl_points,
        loo_error_frac=found.loo_error_frac,
        quality=found.quality,
        measured_on=found.offering,
        measured_context_tokens=found.longest_tokens,
        date=found.date,
        prefill_points=found.prefill_points,
        origin="own figures",
    )

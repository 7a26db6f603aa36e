"""What can be rented, and how fast is it? Reads the catalogue packaged in `config/catalog`.

Its README.md says where every figure comes from and what is weak. Thin: on-demand prices of one
region per provider; curves of published vLLM sweeps only.
"""

import csv
import difflib
import math
from collections.abc import Iterator
from importlib import resources
from typing import Literal

import msgspec

from steelyard.domain.offering import InstanceType, Offering
from steelyard.domain.pool import LlmCurve, ToolCurve
from steelyard.errors import ConfigError

Quality = Literal["ok", "weak"]
FitOrigin = Literal["measured", "weak", "borrowed", "predicted", "own figures"]
HardwareKey = tuple[str, str]

SOURCE = "SpareCores/sc-inspector-data 804d3c71"


class LlmFit(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted curve with what must be known to trust it.

    Attributes:
        curve: The curve; `predicted` where it was measured on a sibling with the same GPUs.
        model: Canonical model name, e.g. `qwen2.5-0.5b`.
        engine: Engine and version, e.g. `vllm-0.22.1`; do not compare across.
        prompt_tokens: Prompt length of the sweep, all of it uncached.
        output_tokens: Answer length of the sweep.
        points: Number of load points fitted.
        loo_error_frac: Median relative error of itl when an interior point is left out; None
            with fewer than three points.
        quality: `weak` when few requests, few points, a bad fit or a borrowed curve.
        measured_on: `provider/instance_type` whose figures these are; empty for a roofline
            estimate.
        measured_context_tokens: Longest context that the measurement allowed; beyond it the
            curve is extrapolated.
        date: Day of the measurement, ISO 8601; empty where unknown.
        prefill_points: Number of prompt lengths behind the prefill line.
        origin: Where it comes from: measured on this type, measured weakly, borrowed from a type
            with the same GPUs, predicted by the roofline, or a figures file of the user's own.
    """

    curve: LlmCurve
    model: str
    engine: str
    prompt_tokens: int
    output_tokens: int
    points: int
    loo_error_frac: float | None
    quality: Quality
    measured_on: str
    measured_context_tokens: int
    date: str = ""
    prefill_points: int = 1
    origin: FitOrigin = "measured"


class ToolFit(msgspec.Struct, frozen=True, kw_only=True):
    """CPU speed of a machine with what must be known to trust it.

    Attributes:
        curve: Speed per core at full load, cores and memory.
        single_thread_speed: Speed of one thread on an idle machine, relative to the reference
            core in the same state; None without a figure.
        n_proxies: Number of benchmark programs behind `relative_speed`, of five.
        quality: `weak` when some are missing.
        memory_read_bytes_per_s: Measured reading speed of main memory, all cores; None without a
            figure. For the roofline estimate.
    """

    curve: ToolCurve
    single_thread_speed: float | None
    n_proxies: int
    quality: Quality
    memory_read_bytes_per_s: float | None = None


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a machine beside its size.

    Attributes:
        microarch: Micro-architecture of its CPU; empty where the provider hides it.
        watts_idle: Watts of the idle machine; None without a source.
        watts_max: Watts of the machine with all cores busy; None without a source.
        watts_source: Where the watts were read; they are estimates, never measurements.
    """

    microarch: str
    watts_idle: float | None
    watts_max: float | None
    watts_source: str


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """Offerings with their curves; immutable.

    Attributes:
        offerings: Sorted by name.
        llm_fits: (provider, instance type) to its fits, by model, engine and prompt length.
        tool_fits: (provider, instance type) to its CPU speed.
        facts: (provider, instance type) to what else is known of it.
    """

    offerings: tuple[Offering, ...]
    llm_fits: dict[HardwareKey, tuple[LlmFit, ...]]
    tool_fits: dict[HardwareKey, ToolFit]
    facts: dict[HardwareKey, MachineFacts] = {}

    def offering(self, name: str) -> Offering:
        """Which offering has this name, or is the only one of this `provider/instance_type`?

        Raises:
            ConfigError: None has; the message names the nearest.
        """
        for offering in self.offerings:
            if name in (offering.name, "/".join(hardware_key(offering))):
                return offering
        names = [o.name for o in self.offerings]
        short = ["/".join(hardware_key(o)) for o in self.offerings]
        near = difflib.get_close_matches(name, names + short, n=3, cutoff=0.5)
        cure = f"nearest: {', '.join(near)}" if near else "see `steelyard catalog list`"
        raise ConfigError(f"offering {name[:200]!r} is not in the catalogue; {cure}")

    def llm_fit(
        self,
        offering: Offering,
        model: str,
        engine: str | None = None,
        prompt_tokens: float = 256.0,
    ) -> LlmFit | None:
        """Which measured sweep describes this model on this offering best?

        Args:
            offering: What is rented.
            model: Canonical model name.
            engine: Engine and version; None takes whichever was measured.
            prompt_tokens: Uncached prompt tokens per step; the sweep with the nearest prompt
                length (in ratio) is taken, sweeps of a single load point only when alone.

        Returns:
            The fit, or None where nothing was measured.
        """
        mine = [f for f in self.llm_fits.get(hardware_key(offering), ()) if f.model == model]
        # What the user measured on the real machine counts before anything published.
        fits = [fit for fit in mine if fit.origin == "own figures"]
        fits = fits or [fit for fit in mine if engine in (None, fit.engine)]
        if not fits:
            return None
        wanted = math.log(max(1.0, prompt_tokens))
        return min(
            fits,
            key=lambda f: (
                f.points < 2,
                abs(math.log(f.prompt_tokens) - wanted),
                f.engine,
                f.prompt_tokens,
            ),
        )

    def llm_curve(
        self,
        offering: Offering,
        model: str,
        engine: str | None = None,
        prompt_tokens: float = 256.0,
    ) -> LlmCurve | None:
        """How fast does this offering serve this model? See `llm_fit` for the choice of sweep."""
        fit = self.llm_fit(offering, model, engine, prompt_tokens)
        return None if fit is None else fit.curve

    def tool_curve(self, offering: Offering) -> ToolCurve | None:
        """How fast does this offering run tools? None where its CPU was not measured."""
        fit = self.tool_fits.get(hardware_key(offering))
        return None if fit is None else fit.curve

    def models(self) -> tuple[str, ...]:
        """Which models have a curve on some offering? Sorted."""
        return tuple(sorted({fit.model for fits in self.llm_fits.values() for fit in fits}))


def load_catalog(*, with_spot: bool = False) -> Catalog:
    """What is in the packaged catalogue?

    Args:
        with_spot: Whether to offer machines at spot prices, too, where a source has one.

    Raises:
        ConfigError: A packaged file is missing or damaged.
    """
    rows = list(_rows("offerings.csv"))
    offerings = [_offering(row) for row in rows]
    if with_spot:
        sold = {hardware_key(one): one for one in offerings}
        offerings.extend(
            _at_spot_price(sold[row["provider"], row["instance_type"]], row)
            for row in _rows("spot_prices.csv")
        )
    fits: dict[HardwareKey, list[LlmFit]] = {}
    for row in _rows("llm_curves.csv"):
        fits.setdefault((row["provider"], row["instance_type"]), []).append(_llm_fit(row))
    return Catalog(
        offerings=tuple(sorted(offerings, key=lambda o: o.name)),
        llm_fits={key: tuple(value) for key, value in fits.items()},
        tool_fits={
            (row["provider"], row["instance_type"]): _tool_fit(row)
            for row in _rows("tool_speed.csv")
        },
        facts={(row["provider"], row["instance_type"]): _facts(row) for row in rows},
    )


def hardware_key(offering: Offering) -> HardwareKey:
    """Provider and instance type: the key under which figures of its machine stand."""
    return (offering.provider, offering.instance_type.name)


def _rows(name: str) -> Iterator[dict[str, str]]:
    path = resources.files("steelyard.config").joinpath("catalog", name)
    try:
        with path.open("r", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"catalogue file {name} cannot be read: {error}; reinstall steelyard"
        ) from error


def _quality(text: str) -> Quality:
    return "ok" if text == "ok" else "weak"


def _offering(row: dict[str, str]) -> Offering:
    where = (row["provider"], row["region"], row["instance_type"], row["capacity_type"])
    return Offering(
        name="/".join(where),
        instance_type=InstanceType(
            name=row["instance_type"],
            provider=row["provider"],
            arch="arm64" if row["arch"] == "arm64" else "x86_64",
            vcpus=int(row["vcpus"]),
            memory_bytes=int(row["memory_bytes"]),
            accelerator=row["accelerator"],
            accelerator_count=int(row["accelerator_count"]),
        ),
        region=row["region"],
        capacity_type="on_demand",
        usd_per_hour=float(row["usd_per_hour"]),
        price_date=row["price_date"],
        price_source=row["price_source"],
    )


def _at_spot_price(offering: Offering, row: dict[str, str]) -> Offering:
    return msgspec.structs.replace(
        offering,
        name=f"{offering.name.rpartition('/')[0]}/spot",
        capacity_type="spot",
        usd_per_hour=float(row["usd_per_hour"]),
        price_date=row["price_date"],
        price_source=row["price_source"],
    )


def _llm_fit(row: dict[str, str]) -> LlmFit:
    day = row["date"] or "day unknown"
    curve = LlmCurve(
        ttft_floor_s=float(row["ttft_floor_s"]),
        prefill_s_per_token=float(row["prefill_s_per_token"]),
        itl_base_s=float(row["itl_base_s"]),
        itl_slope_s=float(row["itl_slope_s"]),
        concurrency_cap=int(row["concurrency_cap"]),
        context_tokens=int(row["context_tokens"]),
        predicted=row["measured_on"] != f"{row['provider']}/{row['instance_type']}",
        source=f"{SOURCE}, {row['engine']} on {row['measured_on']}, {day}",
    )
    return LlmFit(
        curve=curve,
        model=row["model"],
        engine=row["engine"],
        prompt_tokens=int(row["prompt_tokens"]),
        output_tokens=int(row["output_tokens"]),
        points=int(row["points"]),
        loo_error_frac=_number(row["loo_error_frac"]),
        quality=_quality(row["quality"]),
        measured_on=row["measured_on"],
        measured_context_tokens=int(row["measured_context_tokens"]),
        date=row["date"],
        prefill_points=int(row["prefill_points"]),
        origin="borrowed" if curve.predicted else "measured" if row["quality"] == "ok" else "weak",
    )


def _facts(row: dict[str, str]) -> MachineFacts:
    return MachineFacts(
        microarch=row["microarch"],
        watts_idle=_number(row["watts_idle"]),
        watts_max=_number(row["watts_max"]),
        watts_source=row["watts_source"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _tool_fit(row: dict[str, str]) -> ToolFit:
    cores = int(row["cores"])
    curve = ToolCurve(
        relative_speed=float(row["relative_speed"]),
        cores=float(cores),
        memory_bytes=int(row["memory_bytes"]),
        # Not in the figures: a warm worker's start is measured live, and is small beside cpu_s.
        start_s=0.0,
        slots=cores,
        predicted=False,
        source=f"{SOURCE}, {row['date_first']} to {row['date_last']}",
    )
    return ToolFit(
        curve=curve,
        single_thread_speed=_number(row["single_thread_speed"]),
        n_proxies=int(row["n_proxies"]),
        memory_read_bytes_per_s=_number(row["memory_read_bytes_per_s"]),
        quality=_quality(row["quality"]),
    )

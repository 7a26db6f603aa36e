"""What may be bought, under which rules, for which demand? The file of `steelyard plan --config`.

Every key says what is wanted. Unknown keys are refused with the nearest valid name.
"""

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from steelyard.config.unknown_keys import is_list, is_table, refuse_unknown
from steelyard.domain.slo import Slo, StepSlo
from steelyard.errors import ConfigError


class DemandSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is provided for.

    Attributes:
        growth_factor: Rate to plan for, over the workload's own.
        quantile: Quantile of prompt length, memory and arrivals that is provided for.
        duration_s: Seconds over which the tasks arrived; None takes the span of the arrivals.
        arrivals: `peak` plans for the `quantile` of the rates in windows, `mean` for their mean.
        peak_window_s: Length of the windows; None takes a length that the recording bears, and the
            mean rate if it bears none.
        day: Load of the hours of a day over the planned one, 24 numbers for plots of a day; empty
            for an assumed course.
    """

    growth_factor: float = 1.0
    quantile: float = 0.95
    duration_s: float | None = None
    arrivals: Literal["peak", "mean"] = "peak"
    peak_window_s: float | None = None
    day: tuple[float, ...] = ()


class RulesSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules that the fleet keeps.

    Attributes:
        provider_share_cap: Largest share of the cost that goes to one provider.
        survive_provider_loss_frac: Share of the demand still served after any provider's loss.
        survive_region_loss_frac: The same for the loss of any one region of a provider.
        spot_share_cap: Largest share of any step's demand that depends on spot machines: the
            others can serve the rest by themselves.
        budget_usd_per_hour: Highest cost of the fleet.
    """

    provider_share_cap: float | None = None
    survive_provider_loss_frac: float | None = None
    survive_region_loss_frac: float | None = None
    spot_share_cap: float | None = None
    budget_usd_per_hour: float | None = None


class ObjectiveSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is made small: rent, and the energy of the machines at a price.

    Attributes:
        usd_per_kwh: Price on a kilowatt-hour; 0 for the rent alone.
        pue: Energy of the data centre over that of its machines.
    """

    usd_per_kwh: float = 0.0
    pue: float = 1.2


class AllowedSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be bought; an empty list allows all.

    Attributes:
        providers: Names of providers.
        regions: Names of regions.
        archs: `arm64`, `x86_64`.
        spot: Whether machines at spot prices may be bought; interruptions are not modelled.
        predicted: Whether roofline estimates count where nothing was measured.
        borrowed: Whether curves measured on a type with the same GPUs count.
        engine: Engine and version whose curves count.
        refreshed_prices: Whether the prices of `steelyard catalog refresh` count.
    """

    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    archs: tuple[Literal["arm64", "x86_64"], ...] = ()
    spot: bool = False
    predicted: bool = False
    borrowed: bool = True
    engine: str = "vllm-0.22.1"
    refreshed_prices: bool = False


class HeadroomSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is kept free; the larger of the first two counts.

    Attributes:
        max_utilisation_frac: Largest share of a machine's time that is planned for.
        staffing_beta: b of the square-root rule R + b * sqrt(R).
        weak_derate_frac: How much slower weakly measured curves are taken to be.
        service_factor: Service times are taken to be this many times the figures.
        simulated_attainment_frac: Raise headroom until this share of tasks, and of every kind of
            LLM step, keeps its limits in a simulation; None simulates nothing.
        simulated_service_factor: Service times of that simulation over the figures.
        simulated_tasks: Tasks to simulate.
        simulated_seed: Seed of the draws and arrivals.
    """

    max_utilisation_frac: float = 0.8
    staffing_beta: float = 1.0
    weak_derate_frac: float = 0.1
    service_factor: float = 1.0
    simulated_attainment_frac: float | None = None
    simulated_service_factor: float = 1.2
    simulated_tasks: int = 600
    simulated_seed: int = 1


class OwnedMachines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machines that are there already.

    Attributes:
        offering: Catalogue name of a machine like them.
        machines: How many.
        usd_per_hour: What an hour of running one costs, e.g. its energy; not what it once cost.
    """

    offering: str
    machines: int
    usd_per_hour: float


class DeclaredStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of step of a declared agent; numbers are means unless they say otherwise.

    Attributes:
        name: Name of the step within the agent.
        kind: What it is.
        per_task: How many of it a task has.
        model: Model of an LLM step.
        prompt_tokens: Length of the prompt.
        cached_tokens: Part of it that repeats an earlier step's prefix.
        high_uncached_tokens: Uncached prompt tokens at the planning quantile; None takes the mean.
        output_tokens: Length of the answer.
        cpu_s: CPU seconds of a tool on the reference core.
        wait_s: Seconds that a tool waits beside its CPU time.
        memory_mb: Peak memory of a tool at the planning quantile, in 10^6 bytes.
    """

    name: str
    kind: Literal["llm", "tool"]
    per_task: float = 1.0
    model: str = ""
    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    high_uncached_tokens: float | None = None
    output_tokens: float = 0.0
    cpu_s: float = 0.0
    wait_s: float = 0.0
    memory_mb: float = 0.0


class DeclaredAgent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent whose demand is declared rather than recorded.

    Attributes:
        name: Its name.
        tasks_per_hour: Tasks that arrive in an hour of the load to provide for.
        steps: Its steps; they run one after another.
        deadline_s: Seconds from arrival within which a task must be done; None without.
    """

    name: str
    tasks_per_hour: float
    steps: tuple[DeclaredStep, ...]
    deadline_s: float | None = None


class PlanSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        slo: `[slo]`, limits per step; `[[slo.steps]]`, those of some steps.
        demand: `[demand]`.
        rules: `[rules]`.
        objective: `[objective]`.
        allowed: `[allowed]`.
        headroom: `[headroom]`.
        stock: `[stock]`, offering to the largest number that can be had.
        owned: `[[owned]]`.
        agents: `[[agents]]`, in place of a workload file.
        figures: Files that `steelyard measure` wrote.
    """

    slo: Slo = Slo()
    demand: DemandSection = DemandSection()
    rules: RulesSection = RulesSection()
    objective: ObjectiveSection = ObjectiveSection()
    allowed: AllowedSection = AllowedSection()
    headroom: HeadroomSection = HeadroomSection()
    stock: dict[str, int] = {}
    owned: tuple[OwnedMachines, ...] = ()
    agents: tuple[DeclaredAgent, ...] = ()
    figures: tuple[str, ...] = ()


_HOURS = 24
_NESTED: dict[str, type[msgspec.Struct]] = {
    "slo": Slo,
    "demand": DemandSection,
    "rules": RulesSection,
    "objective": ObjectiveSection,
    "allowed": AllowedSection,
    "headroom": HeadroomSection,
}
_LISTED: dict[str, type[msgspec.Struct]] = {
    "owned": OwnedMachines,
    "agents": DeclaredAgent,
    "steps": DeclaredStep,
}


def load_plan_settings(path: Path) -> PlanSettings:
    """What does a plan's configuration say?

    Args:
        path: A TOML file.

    Returns:
        The settings; figures files are taken from the file's folder.

    Raises:
        ConfigError: The file is missing or no TOML, or a key or value is wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config {path} is not TOML: {error}") from error
    refuse_unknown(path, "", table, PlanSettings, _NESTED)
    _refuse_in_lists(path, "", table)
    _refuse_in_slo(path, table.get("slo"))
    try:
        settings = msgspec.convert(table, PlanSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"--config {path}: {error}") from error
    _check(str(path), settings)
    anchored = tuple(str(path.parent / name) for name in settings.figures)
    return msgspec.structs.replace(settings, figures=anchored)


def _refuse_in_lists(path: Path, where: str, table: dict[str, Any]) -> None:
    for key, struct in _LISTED.items():
        rows = table.get(key)
        for number, row in enumerate(rows if is_list(rows) else []):
            if is_table(row):
                place = f"{where}{key}[{number}]."
                refuse_unknown(path, place, row, struct, {})
                _refuse_in_lists(path, place, row)


def _refuse_in_slo(path: Path, slo: object) -> None:
    rows: object = slo.get("steps") if is_table(slo) else None
    for number, row in enumerate(rows if is_list(rows) else []):
        if is_table(row):
            refuse_unknown(path, f"slo.steps[{number}].", row, StepSlo, {})


def _check(path: str, settings: PlanSettings) -> None:
    demand, rules, headroom = settings.demand, settings.rules, settings.headroom
    above_zero: dict[str, float | None] = _slo_limits(settings.slo) | {
        "headroom.service_factor": headroom.service_factor,
        "headroom.simulated_attainment_frac": headroom.simulated_attainment_frac,
        "headroom.simulated_service_factor": headroom.simulated_service_factor,
        "headroom.simulated_tasks": headroom.simulated_tasks,
        "demand.growth_factor": demand.growth_factor,
        "demand.quantile": demand.quantile,
        "demand.duration_s": demand.duration_s,
        "demand.peak_window_s": demand.peak_window_s,
        "rules.provider_share_cap": rules.provider_share_cap,
        "rules.budget_usd_per_hour": rules.budget_usd_per_hour,
        "headroom.max_utilisation_frac": headroom.max_utilisation_frac,
    }
    above_zero |= {f"demand.day[{hour}]": load for hour, load in enumerate(demand.day)}
    above_zero |= {f"owned {o.offering}: machines": o.machines for o in settings.owned}
    above_zero |= {f"owned {o.offering}: usd_per_hour": o.usd_per_hour for o in settings.owned}
    for key, value in above_zero.items():
        if value is not None and not (value > 0.0 and math.isfinite(value)):
            raise ConfigError(f"{path}: {key} is {value}; it must be a number above 0")
    at_least_zero: dict[str, float | None] = {
        "rules.survive_provider_loss_frac": rules.survive_provider_loss_frac,
        "rules.survive_region_loss_frac": rules.survive_region_loss_frac,
        "rules.spot_share_cap": rules.spot_share_cap,
        "objective.usd_per_kwh": settings.objective.usd_per_kwh,
        "headroom.staffing_beta": headroom.staffing_beta,
        "headroom.simulated_seed": headroom.simulated_seed,
        "headroom.weak_derate_frac": headroom.weak_derate_frac,
    }
    at_least_zero |= {f"stock {name}": count for name, count in settings.stock.items()}
    _check_at_least_zero(path, at_least_zero)
    shares = {
        "demand.quantile": demand.quantile,
        "rules.provider_share_cap": rules.provider_share_cap,
        "rules.survive_provider_loss_frac": rules.survive_provider_loss_frac,
        "rules.survive_region_loss_frac": rules.survive_region_loss_frac,
        "rules.spot_share_cap": rules.spot_share_cap,
        "headroom.max_utilisation_frac": headroom.max_utilisation_frac,
        "headroom.simulated_attainment_frac": headroom.simulated_attainment_frac,
    }
    for key, value in shares.items():
        if value is not None and value > 1.0:
            raise ConfigError(f"{path}: {key} is {value}; it is a share, at most 1")
    if settings.demand.day and len(settings.demand.day) != _HOURS:
        raise ConfigError(
            f"{path}: demand.day has {len(settings.demand.day)} numbers; give one per hour, 24"
        )
    if not (settings.objective.pue >= 1.0 and math.isfinite(settings.objective.pue)):
        raise ConfigError(
            f"{path}: objective.pue is {settings.objective.pue}; it must be a number of 1 or more"
        )
    names = [agent.name for agent in settings.agents]
    for agent in settings.agents:
        if names.count(agent.name) > 1:
            raise ConfigError(f"{path}: two agents are named {agent.name!r}; names must be unique")
        _check_agent(path, agent)


def _slo_limits(slo: Slo) -> dict[str, float | None]:
    """Every limit under its key."""
    found: dict[str, float | None] = {}
    entries: list[tuple[str, Slo | StepSlo]] = [("slo", slo)]
    entries.extend((f"slo.steps[{number}]", one) for number, one in enumerate(slo.steps))
    for place, one in entries:
        found |= {
            f"{place}.ttft_s": one.ttft_s,
            f"{place}.itl_s": one.itl_s,
            f"{place}.tpot_s": one.tpot_s,
            f"{place}.latency_s": one.latency_s,
        }
    return found


def _check_at_least_zero(path: str, values: dict[str, float | None]) -> None:
    for key, value in values.items():
        if value is not None and not (value >= 0.0 and math.isfinite(value)):
            raise ConfigError(f"{path}: {key} is {value}; it must be a number of 0 or more")


def _check_agent(path: str, agent: DeclaredAgent) -> None:
    where = f"{path}: agent {agent.name!r}"
    if not (agent.tasks_per_hour > 0.0 and math.isfinite(agent.tasks_per_hour)):
        raise ConfigError(
            f"{where}: tasks_per_hour is {agent.tasks_per_hour}; it must be a number above 0"
        )
    if agent.deadline_s is not None and not agent.deadline_s > 0.0:
        raise ConfigError(f"{where}: deadline_s is {agent.deadline_s}; it must be above 0")
    if not agent.steps:
        raise ConfigError(f"{where} has no steps; add [[agents.steps]]")
    names = [step.name for step in agent.steps]
    for step in agent.steps:
        if names.count(step.name) > 1:
            raise ConfigError(f"{where}: two steps are named {step.name!r}; names must be unique")
        _check_step(f"{where}: step {step.name!r}", step)


def _check_step(where: str, step: DeclaredStep) -> None:
    numbers = {
        field.name: value
        for field in msgspec.structs.fields(step)
        if isinstance(value := getattr(step, field.name), float)
    }
    _check_at_least_zero(where, dict(numbers))
    if not step.per_task > 0.0:
        raise ConfigError(f"{where}: per_task is {step.per_task}; it must be above 0")
    if step.kind == "llm" and not step.model:
        raise ConfigError(f"{where} is an LLM step without a model; name one")
    if step.kind == "tool" and step.model:
        raise ConfigError(f"{where} is a tool step with a model; take the model away")
    if step.cached_tokens > step.prompt_tokens:
        raise ConfigError(
            f"{where}: cached_tokens {step.cached_tokens:g} is more than its"
            f" prompt_tokens {step.prompt_tokens:g}"
        )

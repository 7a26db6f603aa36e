"""What did a whole run come to? Cost, latency by kind of step, use of pools, energy, over time."""

import math

import msgspec

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.errors import SteelyardBugError
from steelyard.ledger.latencies import Percentiles, by_kind, e2e_percentiles, ttft_percentiles
from steelyard.ledger.ledger import AttemptRecord, Ledger
from steelyard.ledger.over_time import TimeFigures, busy_spans, cached_frac, over_time
from steelyard.ledger.power import ReplicaFacts


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts of one step name of one agent that went well.

    Attributes:
        agent: The agent.
        step: Name of the step.
        kind: `llm` or `tool`.
        count: How many.
        ttft: Placement to first token, the queue included; None for tools.
        e2e: Placement to end.
    """

    agent: str
    step: str
    kind: str
    count: int
    ttft: Percentiles | None
    e2e: Percentiles


class PoolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool was used.

    Attributes:
        pool: Its name.
        hardware: `gpu`, `arm`, `x86` or `vendor`.
        replicas: How many there can be at once.
        rented_replicas: How many were rented, in the mean over the span.
        attempts: Attempts that ended there.
        used_usd: Cost of what was used.
        paid_usd: Rent of what was rented, idle time included, or the vendor's charge.
        utilisation_frac: Used over paid for; 0 for a pool without rent.
        busy_frac: Share of the rented time for which a replica had anything to do.
        cached_frac: Share of the prompt tokens read from its caches; None without prompts.
        gpu_hours: GPUs times hours rented.
        energy_kwh: Estimate from idle and full power, by `busy_frac`; None without a source.
    """

    pool: str
    hardware: str
    replicas: int
    rented_replicas: float
    attempts: int
    used_usd: float
    paid_usd: float
    utilisation_frac: float
    busy_frac: float
    cached_frac: float | None
    gpu_hours: float
    energy_kwh: float | None


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to.

    Attributes:
        tasks: Tasks that ended.
        span_s: First arrival to last end.
        cost_usd: Cost of what was used.
        paid_usd: What was paid, idle time included.
        usd_per_task: Paid, for one task.
        used_usd_per_task: Used, for one task.
        slo_attainment_frac: Share of the tasks that met every SLO.
        goodput_per_s: Tasks per second that did.
        refused: Steps that were refused.
        gpu_hours: GPU-hours rented.
        energy_kwh: Sum over the pools with a source; None if none has one.
        steps: By agent and step name.
        pools: By pool.
        over_time: The same over time.
    """

    tasks: int
    span_s: float
    cost_usd: float
    paid_usd: float
    usd_per_task: float
    used_usd_per_task: float
    slo_attainment_frac: float
    goodput_per_s: float
    refused: int
    gpu_hours: float
    energy_kwh: float | None
    steps: tuple[StepFigures, ...]
    pools: tuple[PoolFigures, ...]
    over_time: TimeFigures


def run_figures(ledger: Ledger, facts: dict[str, ReplicaFacts] | None = None) -> RunFigures:
    """What did a run come to?

    Args:
        ledger: Its books.
        facts: What replicas of each pool are made of; GPUs count as one per GPU replica and power
            as unknown where it is left out.

    Returns:
        The figures.
    """
    made_of = {
        name: (facts or {}).get(name, ReplicaFacts(gpus=int(spec.hardware == "gpu")))
        for name, spec in sorted(ledger.pools.items())
    }
    pools = tuple(_pool(ledger, ledger.pools[name], known) for name, known in made_of.items())
    tasks = len(ledger.tasks)
    energies = [one.energy_kwh for one in pools if one.energy_kwh is not None]
    return RunFigures(
        tasks=tasks,
        span_s=ledger.span_s,
        cost_usd=ledger.cost_usd,
        paid_usd=ledger.rent_usd,
        usd_per_task=ledger.rent_usd / tasks if tasks else 0.0,
        used_usd_per_task=ledger.cost_usd / tasks if tasks else 0.0,
        slo_attainment_frac=ledger.slo_attainment_frac,
        goodput_per_s=ledger.goodput_per_s,
        refused=len(ledger.refused),
        gpu_hours=math.fsum(one.gpu_hours for one in pools),
        energy_kwh=math.fsum(energies) if energies else None,
        steps=tuple(_step(*kind, attempts) for kind, attempts in by_kind(ledger.attempts).items()),
        pools=pools,
        over_time=over_time(ledger, made_of),
    )


def _step(agent: str, step: str, attempts: list[AttemptRecord]) -> StepFigures:
    e2e = e2e_percentiles(attempts)
    if e2e is None:
        raise SteelyardBugError(f"step {step} of agent {agent} has latencies of no attempt")
    return StepFigures(
        agent=agent,
        step=step,
        kind=attempts[0].step.kind,
        count=len(attempts),
        ttft=ttft_percentiles(attempts),
        e2e=e2e,
    )


def _pool(ledger: Ledger, spec: PoolSpec, facts: ReplicaFacts) -> PoolFigures:
    mine = [one for one in ledger.attempts if one.decision.pool == spec.name]
    used_usd = math.fsum(one.cost_usd for one in mine)
    rent, span = ledger.rents[spec.name], (ledger.first_s, ledger.last_s)
    rented_s, rent_usd = rent.replica_s(*span), rent.usd(*span)
    hours = rented_s / SECONDS_PER_HOUR
    paid_usd = used_usd if spec.token_price is not None else rent_usd
    busy_s = math.fsum(end_s - start_s for start_s, end_s in busy_spans(mine))
    return PoolFigures(
        pool=spec.name,
        hardware=spec.hardware,
        replicas=spec.replicas,
        rented_replicas=rented_s / ledger.span_s if ledger.span_s > 0.0 else 0.0,
        attempts=len(mine),
        used_usd=used_usd,
        paid_usd=paid_usd,
        utilisation_frac=used_usd / rent_usd if rent_usd > 0.0 else 0.0,
        busy_frac=busy_s / rented_s if rented_s > 0.0 else 0.0,
        cached_frac=cached_frac(mine),
        gpu_hours=facts.gpus * hours,
        energy_kwh=facts.energy_kwh(hours, busy_s / SECONDS_PER_HOUR),
    )

"""The pictures of docs/explanation/policy.md, drawn from the policy itself.

One step of qwen2.5-0.5b (2,000 prompt tokens, 100 to generate) meets four pools. Curves and rents
are the catalogue's; the bid prices and the queue are made up, as the page says. Usage:
`python scripts/draw_policy.py [FOLDER]`; without a folder, docs/images/drawn.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    BidChanged,
    PoolAdded,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.state import FleetState
from steelyard.placement.candidates import warm_or_cold
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.predictions import Predictions, allowed_s, predict
from steelyard.report.canvas import HARDWARE_HUES, axes, drawing, plain_log_ticks

_MODEL = "qwen2.5-0.5b"
# Pool -> offering, and its bid price over its rent: Arm stands idle, the GPU is scarce.
_POOLS = {
    "arm": ("aws/m9g.xlarge", 0.3),
    "x86": ("azure/Standard_D8als_v7", 0.7),
    "gpu": ("gcp/g2-standard-4", 20.0),
}
_DEADLINE_S = 30.0
_QUEUED = 10


def fleet() -> FleetState:
    """Three pools of one replica each, with bid prices; nothing runs."""
    catalog, state = load_catalog(), FleetState()
    for name, (offering, bid) in _POOLS.items():
        spec = _spec(catalog, name, offering)
        state.apply(PoolAdded(t_s=0.0, spec=spec))
        state.apply(BidChanged(t_s=0.0, pool=name, bid_usd_per_hour=bid * spec.usd_per_hour))
    return state


def _spec(catalog: Catalog, name: str, offering_name: str) -> PoolSpec:
    offering = catalog.offering(offering_name)
    curve = catalog.llm_curve(offering, _MODEL)
    if curve is None:
        raise SystemExit(f"{offering_name} has no curve of {_MODEL}; take another offering")
    return PoolSpec(
        name=name,
        provider=offering.provider,
        region=offering.region,
        arch=offering.instance_type.arch,
        hardware=offering.instance_type.hardware,
        offering=offering.name,
        usd_per_hour=offering.usd_per_hour,
        replicas=1,
        llm_curves={_MODEL: curve},
    )


def taught(state: FleetState) -> FleetState:
    """The same after tasks of the agent have ended: it has this one step, and no more."""
    for number in range(1, 6):
        asked, task_id = step(None, -number), f"task-{-number}"
        decided = CheapestFeasible()(asked, state.view(asked, 0.0))
        if isinstance(decided, Decision):
            usage = Usage(input_tokens=2000, output_tokens=100, wall_s=decided.predicted_finish_s)
            end_s = decided.predicted_finish_s
            attempt = {"task_id": task_id, "step_id": 0, "attempt": 0}
            state.apply(TaskSubmitted(t_s=0.0, task_id=task_id, agent="a"))
            state.apply(StepPlaced(t_s=0.0, step=asked, decision=decided))
            state.apply(AttemptStarted(t_s=0.0, **attempt))
            state.apply(
                AttemptFinished(t_s=end_s, outcome="ok", usage=usage, cost_usd=0.0, **attempt)
            )
            state.apply(TaskFinished(t_s=end_s, task_id=task_id, status="succeeded"))
    return state


def step(deadline_s: float | None, number: int = 0) -> Step:
    """The step that is placed."""
    call = LlmCall(model=_MODEL, input_tokens=2000, max_output_tokens=100)
    return Step(
        task_id=f"task-{number}",
        step_id=0,
        agent="a",
        name="s",
        call=call,
        deadline_s=deadline_s,
    )


def decisions(state: FleetState) -> Iterator[tuple[float, Decision]]:
    """What is decided for each deadline?"""
    policy = CheapestFeasible()
    for deadline_s in np.geomspace(0.4, 20.0, 400):
        asked = step(float(deadline_s))
        decided = policy(asked, state.view(asked, 0.0))
        if isinstance(decided, Decision):
            yield float(deadline_s), decided


def _ranges(state: FleetState) -> list[tuple[float, float, str]]:
    """From which deadline to which is one pool chosen?"""
    found: list[tuple[float, float, str]] = []
    for deadline_s, decided in decisions(state):
        if found and found[-1][2] == decided.pool:
            found[-1] = (found[-1][0], deadline_s, decided.pool)
        else:
            first_s = found[-1][1] if found else deadline_s
            found.append((first_s, deadline_s, decided.pool))
    return found


def draw_deadlines(state: FleetState) -> str:
    """Pools by time and price, and below them who is chosen at which deadline."""
    asked = step(None)
    seen = predict(asked, state.view(asked, 0.0), warm_or_cold)
    with drawing("policy-deadline", 3.6) as drawn:
        top, strip = drawn.figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [5.0, 1.0]}
        )
        for at, name in enumerate(_POOLS):
            finish_s, usd = float(seen.finish_s[at]), 1000.0 * float(seen.bid_cost_usd[at])
            top.plot(finish_s, usd, "o", color=HARDWARE_HUES[name], markersize=9)
            top.annotate(
                f"{name}: ends after {finish_s:.2g} s",
                (finish_s, usd),
                xytext=(10, -3),
                textcoords="offset points",
            )
        top.set_yscale("log")
        top.set_ylabel("USD per 1,000 such steps,\nat the bid price")
        for first_s, last_s, pool in _ranges(state):
            strip.axvspan(first_s, last_s, color=HARDWARE_HUES[pool], linewidth=0)
        strip.set_yticks([])
        strip.set_ylabel("chosen")
        strip.set_xscale("log")
        strip.set_xlabel("seconds: end of the step (above), deadline of the task (below)")
        for one in (top, strip):
            one.grid(visible=True, axis="x", alpha=0.3)
        plain_log_ticks(strip.xaxis)
        plain_log_ticks(top.yaxis)
        top.margins(x=0.1, y=0.3)
    return drawn.svg


def _busy(state: FleetState) -> None:
    """Put steps on the cheap pool, so that it has a queue."""
    for number in range(1, _QUEUED + 1):
        asked = step(None, number)
        decided = CheapestFeasible()(asked, state.view(asked, 0.0))
        if isinstance(decided, Decision):
            state.apply(StepPlaced(t_s=0.0, step=asked, decision=decided))
            started = AttemptStarted(t_s=0.0, task_id=asked.task_id, step_id=0, attempt=0)
            if decided.predicted_wait_s == 0.0:
                state.apply(started)


def draw_shares(state: FleetState) -> str:
    """What a step would take in each pool, and how long it may take."""
    _busy(state)
    asked = step(_DEADLINE_S)
    view = state.view(asked, 0.0)
    seen: Predictions = predict(asked, view, warm_or_cold)
    share_s = allowed_s(asked, view, float((seen.finish_s - seen.wait_s)[seen.runs].min()))
    decided = CheapestFeasible()(asked, view)
    with drawing("policy-share", 2.4) as drawn:
        plot = axes(drawn)
        for at, name in enumerate(_POOLS):
            start_s = 0.0
            for part_s, alpha in _parts(seen, at):
                hue = HARDWARE_HUES[name]
                plot.barh(at, part_s, left=start_s, color=hue, alpha=alpha, height=0.6)
                start_s += part_s
            chosen = isinstance(decided, Decision) and decided.pool == name
            told = (
                f"{1000.0 * seen.bid_cost_usd[at]:.2g} USD per 1,000{', chosen' if chosen else ''}"
            )
            plot.annotate(told, (start_s, at), xytext=(5, -3), textcoords="offset points")
        plot.axvline(share_s, color="#d55e00", linestyle="--")
        plot.annotate(
            "the step's share of the slack",
            (share_s, 2.45),
            xytext=(4, 0),
            textcoords="offset points",
        )
        plot.set_yticks(range(len(_POOLS)), list(_POOLS))
        plot.set_ylim(-0.6, 2.9)
        plot.set_xlabel("seconds from now: wait (pale), prompt, answer (full); task due after 30 s")
        plot.margins(x=0.35)
    return drawn.svg


def _parts(seen: Predictions, at: int) -> tuple[tuple[float, float], ...]:
    """Seconds and how strongly each is drawn."""
    wait_s, ttft_s = float(seen.wait_s[at]), float(seen.ttft_s[at])
    rest_s = float(seen.finish_s[at]) - wait_s - ttft_s
    return ((wait_s, 0.25), (ttft_s, 0.6), (rest_s, 1.0))


def main() -> None:
    """Draw both."""
    default = Path(__file__).parents[1] / "docs" / "images" / "drawn"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in (
        ("policy-deadline", draw_deadlines(taught(fleet()))),
        ("policy-share", draw_shares(fleet())),
    ):
        (folder / f"{name}.svg").write_text(f"{svg}\n", encoding="utf-8")
        print(folder / f"{name}.svg")


if __name__ == "__main__":
    main()

"""How much memory does the fleet's state take per replica, open step and prompt boundary?

python benchmarks/fleet_memory.py [--replicas 6000] [--steps 20000]

What `tracemalloc` counts for one `FleetState`, the bookkeeping of a gateway: empty replicas in
nine pools, then steps under way, then what their ended prompts left in the replicas' caches.
"""

import argparse
import datetime as dt
import os
import platform
import sys
import tracemalloc

import msgspec
from simulator import fleet

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    PoolAdded,
    StepPlaced,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.state import FleetState

POOLS, BOUNDARIES = 9, 20


def placed(number: int, pool: str, replica: int, model: str) -> StepPlaced:
    """A step of a task of its own, whose prompt has so many boundaries that nobody shares."""
    tokens = tuple(1000 * (at + 1) for at in range(BOUNDARIES))
    call = LlmCall(
        model=model, input_tokens=tokens[-1], max_output_tokens=200,
        prefix_hashes=tuple(hash((number, at)) for at in range(BOUNDARIES)), prefix_tokens=tokens,
    )  # fmt: skip
    step = Step(
        task_id=f"task-{number}", step_id=0, attempt=0, name="edit", agent="coder", call=call
    )
    decision = Decision(
        pool=pool, replica=replica, predicted_wait_s=0.0, predicted_ttft_s=0.1,
        predicted_finish_s=1.0, predicted_cached_tokens=0, predicted_output_tokens=100.0,
        predicted_cost_usd=1e-4, bid_usd_per_hour=1.0, slack_s=9.0, policy="p", reason="",
        verdicts=(),
    )  # fmt: skip
    return StepPlaced(t_s=1.0, step=step, decision=decision)


def main() -> None:
    """Fill a state and print what each part of it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=20000)
    given = parser.parse_args()
    base = fleet(1)[0]
    model = next(iter(base.llm_curves))
    each = given.replicas // POOLS
    print(
        f"{platform.machine()}, Python {sys.version.split()[0]}, {os.cpu_count()} cores,"
        f" {dt.datetime.now(tz=dt.UTC).date()}; {POOLS} pools of {each} replicas"
    )
    tracemalloc.start()
    state = FleetState()
    for at in range(POOLS):
        spec = msgspec.structs.replace(base, name=f"pool-{at}", replicas=each)
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    empty = tracemalloc.get_traced_memory()[0]
    print(f"replica           {empty / (POOLS * each):8.0f} bytes")
    for number in range(given.steps):
        event = placed(number, f"pool-{number % POOLS}", number // POOLS % each, model)
        state.apply(TaskSubmitted(t_s=1.0, task_id=event.step.task_id, agent="coder"))
        state.apply(event)
        state.apply(
            AttemptStarted(t_s=1.0, task_id=event.step.task_id, step_id=0, attempt=0)
        )  # fmt: skip
    full = tracemalloc.get_traced_memory()[0]
    print(f"task with a step  {(full - empty) / given.steps:8.0f} bytes ({BOUNDARIES} boundaries)")
    for number in range(given.steps):
        used = Usage(input_tokens=20000, output_tokens=100, wall_s=1.0, start_to_first_token_s=0.1)
        state.apply(
            AttemptFinished(
                t_s=2.0, task_id=f"task-{number}", step_id=0, attempt=0, outcome="ok",
                usage=used, cost_usd=1e-4,
            )
        )  # fmt: skip
    ended = tracemalloc.get_traced_memory()[0]
    held = given.steps * BOUNDARIES
    print(f"prompt boundary   {(ended - empty) / held:8.0f} bytes, the task's books included")


if __name__ == "__main__":
    main()

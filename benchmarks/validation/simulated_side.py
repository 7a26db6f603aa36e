"""The simulated side of `benchmarks/validate.py`: what the live side left in its folder, again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from comparison import Row, compare
from live_side import WARM_UP, between_steps_s
from profiles import Round, correction, fitted, swing_frac

from steelyard.config.pool_settings import EmbeddedPoolSettings
from steelyard.config.settings import Settings
from steelyard.domain.events import PoolAdded
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.workload import Workload
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import simulate
from steelyard.sim.conditions import Conditions
from steelyard.sim.serving import Serving
from steelyard.store.sqlite_log import read_events

# OpenVINO GenAI keeps prefixes in blocks on CPUs, and a first token takes a pass over the weights.
_OPENVINO = Serving(cache_block_tokens=32, floor_stalls=True)

# From a curve of the engine and the rounds around a load to the curve that is simulated.
Fit = Callable[[LlmCurve, Sequence[Round]], LlmCurve]


class Recording:
    """A log with its profiles, and simulations of it.

    Args:
        folder: Where the live side left `live.db` and `rounds.json`.
        settings: The pools that ran.
        seed: For the simulator.

    Attributes:
        ledger: The live books.
        rounds: Profiles around each load, by the load's name and pool.
    """

    def __init__(self, folder: Path, settings: Settings, seed: int) -> None:
        log_path = folder / "live.db"
        events = tuple(read_events(log_path))
        self.ledger = Ledger.of(events)
        self.rounds = msgspec.json.decode(
            (folder / "rounds.json").read_bytes(), type=dict[str, dict[str, list[Round]]]
        )
        self._seed = seed
        self._specs = tuple(event.spec for event in events if isinstance(event, PoolAdded))
        self._workload = workload_of(self.ledger, "live", str(log_path))
        self._conditions = Conditions(
            between_steps_s=between_steps_s(self.ledger),
            serving={
                name: _OPENVINO
                for name, pool in settings.pools.items()
                if isinstance(pool, EmbeddedPoolSettings) and pool.engine == "openvino"
            },
        )

    @property
    def passes(self) -> list[tuple[str, str]]:
        """Load and letter of every pass that was run."""
        ids = [task.task_id for task in self.ledger.tasks]
        return [
            (load, one)
            for load in self.rounds
            for one in "pq"
            if any(task_id.startswith(f"{one}{load}-") for task_id in ids)
        ]

    def rows(self) -> list[Row]:
        """Simulate every load as it was measured, and compare; live with live where run twice."""
        rows: list[Row] = []
        for load, one in self.passes:
            title = f"load {load} seed {self._seed}"
            again = ", again" if one == "q" else ""
            rows.append(self.simulated(load, one, f"{title}, simulated against live{again}"))
            if one == "q":
                pair = ((self.ledger, f"p{load}-"), (self.ledger, f"q{load}-"))
                rows.append(compare(f"{title}, live again against live", *pair, self._swing(load)))
        return rows

    def simulated(self, load: str, one: str, name: str, fit: Fit = fitted) -> Row:
        """Simulate one pass of a load and compare it with live.

        Args:
            load: The load's name.
            one: Letter of the pass.
            name: What the row is called.
            fit: Which curve the engines have.
        """
        prefix = f"{one}{load}-"
        rounds = self.rounds[load]
        pools = tuple(_as_measured(spec, rounds, fit) for spec in self._specs)
        run = simulate(
            _part(self._workload, prefix), pools, CheapestFeasible(), self._seed, self._conditions
        )
        other = (Ledger.of(run.events), prefix)
        return compare(name, (self.ledger, prefix), other, self._swing(load))

    def factor(self, curve: LlmCurve) -> float:
        """By what factor did the warm-up's tasks take longer than a curve says?"""
        (pool,) = {name for rounds in self.rounds.values() for name in rounds}
        return correction(self.ledger, pool, curve, WARM_UP)

    def _swing(self, load: str) -> float:
        return max((swing_frac(part) for part in self.rounds[load].values()), default=0.0)


def _as_measured(spec: PoolSpec, rounds: dict[str, list[Round]], fit: Fit) -> PoolSpec:
    if spec.name not in rounds:
        return spec
    curves = {model: fit(curve, rounds[spec.name]) for model, curve in spec.llm_curves.items()}
    return msgspec.structs.replace(spec, llm_curves=curves)


def _part(workload: Workload, prefix: str) -> Workload:
    """The tasks of one load, the first one at 0 s."""
    tasks = [task for task in workload.tasks if task.task_id.startswith(prefix)]
    start_s = tasks[0].arrival_s
    return msgspec.structs.replace(
        workload,
        tasks=tuple(
            msgspec.structs.replace(task, arrival_s=task.arrival_s - start_s) for task in tasks
        ),
    )

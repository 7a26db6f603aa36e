"""What is going on? The events of the log, folded into metrics for Prometheus.

Names follow vLLM's where it has the same thing (its prefix `vllm:` becomes `steelyard_`), so that
dashboards need little change; seconds, tokens and USD are in the names. Everything is per pool but
tasks and HTTP requests.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from steelyard.domain.events import (
    HEDGED_AWAY,
    AttemptFinished,
    AttemptOutcome,
    AttemptStarted,
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    RequestServed,
    StepPlaced,
    StepRefused,
    TaskFinished,
)
from steelyard.gateway.prometheus import Family, Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# Bounds of vLLM's histograms of the same names (vllm/v1/metrics/loggers.py).
_TTFT_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_E2E_BOUNDS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class _OpenAttempt(msgspec.Struct):
    pool: str
    placed_s: float
    started_s: float | None = None
    is_hedge: bool = False


class _PoolCells:
    """The values of one pool that change with every request, looked up once.

    Those that count what may never happen are looked up when it does, so that no series of zeros
    are shown.
    """

    def __init__(self, families: "Metrics", pool: str) -> None:
        self.running = families.running.cell(pool=pool)
        self.waiting = families.waiting.cell(pool=pool)
        self.ended: dict[str, list[float]] = {}
        self.tokens: tuple[list[float], list[float], list[float], list[float]] | None = None
        self.ttft_s: Histogram | None = None
        self.e2e_s: Histogram | None = None


class Metrics:
    """Folds events; subscribe `apply` to the dispatcher before the pools join."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int, int], _OpenAttempt] = {}
        self._takes: dict[type[Any], Callable[[Any], None]] = {
            PoolAdded: self._add_pool,
            PoolRemoved: self._remove_pool,
            ReplicaChanged: self._change_replica,
            TaskFinished: self._close_task,
            StepPlaced: self._place,
            StepRefused: self._refuse,
            AttemptStarted: self._start,
            AttemptFinished: self._finish,
            RequestServed: self._serve,
        }
        self._pools: dict[str, _PoolCells] = {}
        self._done_cells: dict[str, list[float]] = {}
        self._http_cells: dict[tuple[str, int], list[float]] = {}
        self._replicas_down: dict[str, set[int]] = {}
        self._replicas: dict[str, int] = {}
        self.running = Family(
            "steelyard_num_requests_running", "gauge", "Attempts that run now, by pool."
        )
        self.waiting = Family(
            "steelyard_num_requests_waiting", "gauge", "Placed steps that wait to start, by pool."
        )
        self._replicas_up = Family("steelyard_replicas_up", "gauge", "Replicas that are up.")
        self._attempts_done = Family(
            "steelyard_attempts_total", "counter", "Attempts that ended, by pool and outcome."
        )
        self._hedges = Family(
            "steelyard_hedges_total",
            "counter",
            "Second attempts at steps whose answer was late, by pool.",
        )
        self._hedged_away = Family(
            "steelyard_hedged_away_total",
            "counter",
            "Attempts cut short as another one at the step answered first, by pool; `which` is "
            "`first` where the second attempt won.",
        )
        self._refused = Family(
            "steelyard_steps_refused_total", "counter", "Steps that no pool took, by cause."
        )
        self._input_tokens = Family(
            "steelyard_prompt_tokens_total", "counter", "Prompt tokens, cached ones included."
        )
        self._cached_tokens = Family(
            "steelyard_prompt_tokens_cached_total", "counter", "Prompt tokens read from a cache."
        )
        self._output_tokens = Family(
            "steelyard_generation_tokens_total", "counter", "Tokens generated."
        )
        self._cost_usd = Family(
            "steelyard_cost_usd_total", "counter", "What ended attempts cost, in USD."
        )
        self._ttft_s = Family(
            "steelyard_time_to_first_token_seconds",
            "histogram",
            "From placement to the first token, queueing included.",
            _TTFT_BOUNDS_S,
        )
        self._e2e_s = Family(
            "steelyard_e2e_request_latency_seconds",
            "histogram",
            "From placement to the end of attempts that went well, queueing included.",
            _E2E_BOUNDS_S,
        )
        self._tasks_open = Family("steelyard_tasks_open", "gauge", "Tasks that have not ended.")
        self._open_cell = self._tasks_open.cell()
        self._tasks_done = Family(
            "steelyard_tasks_total", "counter", "Tasks that ended, by status."
        )
        self._http = Family(
            "steelyard_http_requests_total", "counter", "HTTP requests, by path and status."
        )

    def apply(self, event: Event) -> None:
        """Take one event into account.

        Args:
            event: The next event of the log.
        """
        take = self._takes.get(type(event))
        if take is not None:
            take(event)

    def _close_task(self, event: TaskFinished) -> None:
        self._tasks_done.add(1.0, status=event.status)

    def _place(self, event: StepPlaced) -> None:
        step, pool = event.step, event.decision.pool
        key = (step.task_id, step.step_id, step.attempt)
        attempt = self._attempts[key] = _OpenAttempt(pool, event.t_s)
        if step.attempt and (*step.key, step.attempt - 1) in self._attempts:
            attempt.is_hedge = True
            self._hedges.add(1.0, pool=pool)
        self._pool(pool).waiting[0] += 1.0

    def _refuse(self, event: StepRefused) -> None:
        self._refused.add(1.0, cause=event.refusal.cause)

    def http_request(self, path: str, status: int) -> None:
        """Count one HTTP request.

        Args:
            path: A known path, not what the client made up.
            status: HTTP status; 499 when the client left.
        """
        cell = self._http_cells.get((path, status))
        if cell is None:
            cell = self._http.cell(path=path, status=str(status))
            self._http_cells[(path, status)] = cell
        cell[0] += 1.0

    def render(self, under_way: Mapping[str, int] | None = None, tasks_open: int = 0) -> bytes:
        """All metrics in Prometheus' text format.

        Args:
            under_way: Requests that run and that no event has told of yet, by pool.
            tasks_open: Tasks that have not ended, beside those requests. Some leave without an
                event: another process goes on with them, or nothing is heard of them any more.
        """
        more = dict(under_way or {})
        self._open_cell[0] = float(tasks_open + sum(more.values()))
        self._add_open(more, 1.0)
        try:
            return self._render()
        finally:
            self._add_open(more, -1.0)

    def _add_open(self, more: dict[str, int], sign: float) -> None:
        for pool, count in more.items():
            self._pool(pool).running[0] += sign * count

    def _render(self) -> bytes:
        families = [
            *(self.running, self.waiting, self._replicas_up, self._attempts_done),
            *(self._hedges, self._hedged_away),
            *(self._refused, self._input_tokens, self._cached_tokens, self._output_tokens),
            *(self._cost_usd, self._ttft_s, self._e2e_s, self._tasks_open, self._tasks_done),
            self._http,
        ]
        return "".join(f"{line}\n" for family in families for line in family.lines()).encode()

    def pool_totals(self, pool: str) -> dict[str, float]:
        """What did a pool's attempts come to since the start?

        Args:
            pool: Name of the pool.

        Returns:
            Attempts by outcome (`ok`, `failed`, `cancelled`), `input_tokens`, `cached_tokens`,
            `output_tokens` and `cost_usd`.
        """
        cells = self._pool(pool)
        totals = {
            outcome: cells.ended[outcome][0] if outcome in cells.ended else 0.0
            for outcome in get_args(AttemptOutcome)
        }
        kinds = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
        counted = cells.tokens or ([0.0],) * len(kinds)
        return totals | {kind: cell[0] for kind, cell in zip(kinds, counted, strict=True)}

    def _add_pool(self, event: PoolAdded) -> None:
        pool = event.spec.name
        self._replicas[pool] = event.spec.replicas
        self._replicas_down.setdefault(pool, set())
        self._show_replicas(pool)
        self._pool(pool)

    def _remove_pool(self, event: PoolRemoved) -> None:
        """What it has done stays; it has no replicas any more."""
        self._replicas[event.pool] = 0
        self._replicas_down.setdefault(event.pool, set())
        self._show_replicas(event.pool)

    def _change_replica(self, event: ReplicaChanged) -> None:
        down = self._replicas_down.setdefault(event.pool, set())
        if event.up:
            down.discard(event.replica)
        else:
            down.add(event.replica)
        self._show_replicas(event.pool)

    def _show_replicas(self, pool: str) -> None:
        replicas = self._replicas.get(pool, 0)
        down = sum(1 for replica in self._replicas_down[pool] if replica < replicas)
        self._replicas_up.set(float(replicas - down), pool=pool)

    def _start(self, event: AttemptStarted) -> None:
        attempt = self._attempts.get((event.task_id, event.step_id, event.attempt))
        if attempt is not None:
            attempt.started_s = event.t_s
            cells = self._pool(attempt.pool)
            cells.waiting[0] -= 1.0
            cells.running[0] += 1.0

    def _finish(self, event: AttemptFinished) -> None:
        attempt = self._attempts.pop((event.task_id, event.step_id, event.attempt), None)
        if attempt is None:
            return
        cells = self._pool(attempt.pool)
        gauge = cells.waiting if attempt.started_s is None else cells.running
        gauge[0] -= 1.0
        if event.error_code == HEDGED_AWAY:
            which = "second" if attempt.is_hedge else "first"
            self._hedged_away.add(1.0, pool=attempt.pool, which=which)
        self._count(event, attempt.pool, attempt.placed_s, attempt.started_s)

    def _serve(self, event: RequestServed) -> None:
        """A whole task in one: it was never seen open."""
        status = "succeeded" if event.outcome == "ok" else "cancelled"
        done = self._done_cells.get(status)
        if done is None:
            done = self._done_cells[status] = self._tasks_done.cell(status=status)
        done[0] += 1.0
        self._count(event, event.decision.pool, event.placed_s, event.placed_s)

    def _count(
        self,
        event: AttemptFinished | RequestServed,
        pool: str,
        placed_s: float,
        started_s: float | None,
    ) -> None:
        """Count the end of an attempt."""
        usage, cells = event.usage, self._pool(pool)
        ended = cells.ended.get(event.outcome)
        if ended is None:
            ended = self._attempts_done.cell(pool=pool, outcome=event.outcome)
            cells.ended[event.outcome] = ended
        ended[0] += 1.0
        if cells.tokens is None:
            cells.tokens = (
                self._input_tokens.cell(pool=pool),
                self._cached_tokens.cell(pool=pool),
                self._output_tokens.cell(pool=pool),
                self._cost_usd.cell(pool=pool),
            )
        counts = (usage.input_tokens, usage.cached_tokens, usage.output_tokens, event.cost_usd)
        for cell, count in zip(cells.tokens, counts, strict=True):
            cell[0] += count
        if event.outcome == "ok":
            if cells.e2e_s is None:
                cells.e2e_s = self._e2e_s.histogram(pool=pool)
            cells.e2e_s.observe(event.t_s - placed_s)
        if usage.start_to_first_token_s is not None and started_s is not None:
            if cells.ttft_s is None:
                cells.ttft_s = self._ttft_s.histogram(pool=pool)
            cells.ttft_s.observe(started_s - placed_s + usage.start_to_first_token_s)

    def _pool(self, pool: str) -> _PoolCells:
        cells = self._pools.get(pool)
        if cells is None:
            cells = self._pools[pool] = _PoolCells(self, pool)
        return cells

"""FleetView: what a policy sees, frozen. Arrays of shape [pools] or [replicas]."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.fleet.estimates import StepExpectation
from steelyard.perf.predict import BoolArray, FloatArray, itl_s

IntArray = npt.NDArray[np.int64]
_C = TypeVar("_C", LlmCurve, ToolCurve)


class PoolRow(msgspec.Struct, frozen=True):
    """One pool's column of `LlmArrays` as plain numbers, for fleets of few pools.

    Attributes:
        name: Name of the pool.
        serves: Whether it serves the model.
        curve: As in `LlmArrays`.
        cap: Steps that run at once on a replica.
        context_tokens: Longest prompt plus output.
        by_token: Whether a vendor is paid per token.
        usd_per_token: For uncached input, cached input and output.
        full_itl_s: Gap between tokens at the cap.
        floor_share_s: `ttft_floor_s / concurrency_cap`.
        kv_tokens: Memory of a replica for contexts; infinite where nobody knows.
    """

    name: str
    serves: bool
    curve: tuple[float, float, float, float, float]
    cap: float
    context_tokens: float
    by_token: bool
    usd_per_token: tuple[float, float, float]
    full_itl_s: float
    floor_share_s: float
    kv_tokens: float = math.inf


@dataclass(frozen=True, slots=True)
class LlmArrays:
    """Curves and prices of every pool for one model; rows of pools without it are neutral.

    Attributes:
        serves: Whether the pool serves the model.
        curve: `ttft_floor_s, prefill_s_per_token, itl_base_s, itl_slope_s, concurrency_cap`.
        context_tokens: Longest prompt plus output.
        by_token: Whether a vendor is paid per token.
        usd_per_token: Rows for uncached input, cached input and output; shape [3, pools].
        kv_tokens: Memory of a replica for contexts; infinite where nobody knows.
        rows: The same, pool by pool.
    """

    serves: BoolArray
    curve: tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]
    context_tokens: FloatArray
    by_token: BoolArray
    usd_per_token: FloatArray
    kv_tokens: FloatArray
    rows: tuple[PoolRow, ...]


@dataclass(frozen=True, slots=True)
class ToolArrays:
    """Speed and room of every pool for tools; rows of pools without tools are neutral.

    Attributes:
        serves: Whether the pool runs tools.
        relative_speed: CPU speed relative to the reference core.
        cores: Cores per replica.
        memory_bytes: Memory per replica.
        start_s: Seconds to start a tool.
        slots: Tools at once per replica.
    """

    serves: BoolArray
    relative_speed: FloatArray
    cores: FloatArray
    memory_bytes: FloatArray
    start_s: FloatArray
    slots: FloatArray


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """What a step's task has done so far.

    Attributes:
        submitted_s: When the task arrived.
        attained_s: Seconds for which its attempts have run.
        last_at: Place of its last LLM step's replica in the arrays of shape [replicas]; -1 before.
        last_end_s: When that step ended.
    """

    submitted_s: float
    attained_s: float
    last_at: int
    last_end_s: float


NO_HISTORY = TaskHistory(submitted_s=0.0, attained_s=0.0, last_at=-1, last_end_s=0.0)
"""Of a task that nobody has announced."""


class FleetView(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """The fleet at one moment, as one step sees it.

    Attributes:
        now_s: Time on the log's clock.
        pools: Specifications, in the order in which pools joined.
        arrays: Curves for the step's model, or for tools.
        rent_usd_per_hour: Rent of a replica, shape [pools].
        bid_usd_per_hour: Price by which pools are compared, shape [pools].
        correction: Measured over predicted service time, shape [pools].
        error_frac: By how much a service time may be off that prediction, shape [pools].
        closed: Whether the circuit breaker lets steps through, shape [pools].
        offsets: Replicas of pool p are `offsets[p] .. offsets[p + 1]`, shape [pools + 1].
        running: Steps that run, shape [replicas].
        waiting: Steps that wait, shape [replicas].
        late: Those of them that let others pass, see `Decision.gives_way`, shape [replicas].
        service_sum_s: Predicted service time of all of them, shape [replicas].
        prefill_share_sum_s: Sum of their `prefill_share_s`: what their prefill would add to each
            gap of a further stream, shape [replicas].
        up: Whether the replica is there, shape [replicas].
        cached_tokens: Tokens of this step's prompt held in the cache, shape [replicas].
        expected: What the step is expected to use.
        live_tokens: Contexts of open tasks whose last call went there, shape [replicas].
        committed_usd: Spent and reserved of the task's budget.
        history: What the task has done so far.
        failed_at: Places in the arrays of shape [replicas] where earlier attempts at this step
            failed, the last one last; see `steelyard.placement.elsewhere`.
        under_way_at: Places where earlier attempts at this step have not ended: it is a hedge.
        caps: What is left of the spend cap of the pool's provider in USD, infinite without one,
            and seconds until it is renewed; shape [2, pools]. None where no provider has a cap.
    """

    now_s: float
    pools: tuple[PoolSpec, ...]
    arrays: LlmArrays | ToolArrays
    rent_usd_per_hour: FloatArray
    bid_usd_per_hour: FloatArray
    correction: FloatArray
    error_frac: FloatArray
    closed: BoolArray
    offsets: IntArray
    running: FloatArray
    waiting: FloatArray
    late: FloatArray
    service_sum_s: FloatArray
    prefill_share_sum_s: FloatArray
    up: BoolArray
    cached_tokens: FloatArray
    expected: StepExpectation
    live_tokens: FloatArray
    committed_usd: float
    history: TaskHistory = NO_HISTORY
    failed_at: tuple[int, ...] = ()
    under_way_at: tuple[int, ...] = ()
    caps: FloatArray | None = None


class FewView(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a policy needs of a fleet of few pools for an LLM step, in plain numbers.

    Attributes:
        now_s: Time on the log's clock.
        rows: Curves and prices of every pool for the step's model.
        rent_usd_per_hour: Rent of a replica, by pool.
        bid_usd_per_hour: Price by which pools are compared, by pool.
        correction: Measured over predicted service time, by pool.
        error_frac: By how much a service time may be off that prediction, by pool.
        closed: Whether the circuit breaker lets steps through, by pool.
        starts: Replicas of pool p are `starts[p] .. starts[p + 1]`.
        running: Steps that run, by replica.
        waiting: Steps that wait, by replica.
        late: Those of them that let others pass, see `Decision.gives_way`, by replica.
        service_sum_s: Predicted service time of all of them, by replica.
        prefill_share_sum_s: Sum of their `prefill_share_s`, by replica.
        up: Whether the replica is there, by replica.
        live_tokens: Contexts of open tasks whose last call went there, by replica.
        cached_tokens: Tokens of this step's prompt held in its cache, by replica; None where no
            replica holds any.
        output_tokens: Expected length of the answer.
        remaining_s: Seconds from the end of this step to the end of its task.
        remaining_known: Whether that was ever seen.
        remaining_deviation_s: Its standard deviation.
        committed_usd: Spent and reserved of the task's budget.
        caps: What is left of the spend cap of each pool's provider, and seconds until it is
            renewed; None where no provider has a cap.
    """

    now_s: float
    rows: tuple[PoolRow, ...]
    rent_usd_per_hour: Sequence[float]
    bid_usd_per_hour: Sequence[float]
    correction: Sequence[float]
    error_frac: Sequence[float]
    closed: Sequence[bool]
    starts: Sequence[int]
    running: Sequence[float]
    waiting: Sequence[float]
    late: Sequence[float]
    service_sum_s: Sequence[float]
    prefill_share_sum_s: Sequence[float]
    up: Sequence[int]
    live_tokens: Sequence[float]
    cached_tokens: Sequence[float] | None
    output_tokens: float
    remaining_s: float
    remaining_known: bool
    remaining_deviation_s: float
    committed_usd: float
    caps: tuple[Sequence[float], Sequence[float]] | None = None


def few_view(view: FleetView, arrays: LlmArrays) -> FewView:
    """The same for a policy of few pools.

    Args:
        view: The fleet as a step sees it.
        arrays: Its curves.

    Returns:
        Plain numbers, copied.
    """
    expected = view.expected
    cached: list[float] = view.cached_tokens.tolist()
    return FewView(
        view.now_s,
        arrays.rows,
        view.rent_usd_per_hour.tolist(),
        view.bid_usd_per_hour.tolist(),
        view.correction.tolist(),
        view.error_frac.tolist(),
        view.closed.tolist(),
        view.offsets.tolist(),
        view.running.tolist(),
        view.waiting.tolist(),
        view.late.tolist(),
        view.service_sum_s.tolist(),
        view.prefill_share_sum_s.tolist(),
        view.up.tolist(),
        view.live_tokens.tolist(),
        cached if any(cached) else None,
        expected.output_tokens,
        expected.remaining_s,
        expected.remaining_known,
        expected.remaining_deviation_s,
        view.committed_usd,
        None if view.caps is None else (view.caps[0].tolist(), view.caps[1].tolist()),
    )


def llm_arrays(
    pools: tuple[PoolSpec, ...], model: str, names: Collection[str] | None = None
) -> LlmArrays:
    """Which pools serve the model, how fast, and at what token price?

    Args:
        pools: The fleet's pools.
        model: Name of the model.
        names: Of those that may be used; None for all.

    Returns:
        Arrays of shape [pools]; a pool without the model gets ones, which no policy reads.
    """
    curves = [_usable(spec.llm_curves.get(model), spec, names) for spec in pools]

    def row(values: list[float]) -> FloatArray:
        return np.array(values, dtype=np.float64)

    prices = [spec.token_price for spec in pools]
    return LlmArrays(
        serves=np.array([curve is not None for curve in curves], dtype=np.bool_),
        curve=(
            row([1.0 if c is None else c.ttft_floor_s for c in curves]),
            row([1.0 if c is None else c.prefill_s_per_token for c in curves]),
            row([1.0 if c is None else c.itl_base_s for c in curves]),
            row([1.0 if c is None else c.itl_slope_s for c in curves]),
            row([1.0 if c is None else c.concurrency_cap for c in curves]),
        ),
        context_tokens=row([0.0 if c is None else c.context_tokens for c in curves]),
        by_token=np.array([price is not None for price in prices], dtype=np.bool_),
        usd_per_token=np.array(
            [
                [0.0 if p is None else p.usd_per_input_token for p in prices],
                [0.0 if p is None else p.usd_per_cached_token for p in prices],
                [0.0 if p is None else p.usd_per_output_token for p in prices],
            ],
            dtype=np.float64,
        ),
        kv_tokens=row([_kv_tokens(spec) for spec in pools]),
        rows=tuple(_pool_row(*one) for one in zip(pools, curves, strict=True)),
    )


def _usable(curve: _C | None, spec: PoolSpec, names: Collection[str] | None) -> _C | None:
    return curve if names is None or spec.name in names else None


def _pool_row(spec: PoolSpec, curve: LlmCurve | None) -> PoolRow:
    price = spec.token_price
    by_token = (
        (0.0, 0.0, 0.0)
        if price is None
        else (price.usd_per_input_token, price.usd_per_cached_token, price.usd_per_output_token)
    )
    if curve is None:
        ones = (1.0, 1.0, 1.0, 1.0, 1.0)
        return PoolRow(spec.name, False, ones, 1.0, 0.0, price is not None, by_token, 2.0, 1.0)
    cap = float(curve.concurrency_cap)
    numbers = (
        curve.ttft_floor_s,
        curve.prefill_s_per_token,
        curve.itl_base_s,
        curve.itl_slope_s,
        cap,
    )
    return PoolRow(
        name=spec.name,
        serves=True,
        curve=numbers,
        cap=cap,
        context_tokens=float(curve.context_tokens),
        by_token=price is not None,
        usd_per_token=by_token,
        full_itl_s=itl_s(curve.itl_base_s, curve.itl_slope_s, cap),
        floor_share_s=curve.ttft_floor_s / cap if cap else math.inf,
        kv_tokens=_kv_tokens(spec),
    )


def _kv_tokens(spec: PoolSpec) -> float:
    return math.inf if spec.kv_tokens is None else float(spec.kv_tokens)


def tool_arrays(pools: tuple[PoolSpec, ...], names: Collection[str] | None = None) -> ToolArrays:
    """Which pools run tools, how fast, and how many at once?

    Args:
        pools: The fleet's pools.
        names: Of those that may be used; None for all.

    Returns:
        Arrays of shape [pools]; a pool without tools gets ones, which no policy reads.
    """
    curves = [_usable(spec.tool_curve, spec, names) for spec in pools]

    def row(values: list[float]) -> FloatArray:
        return np.array(values, dtype=np.float64)

    return ToolArrays(
        serves=np.array([curve is not None for curve in curves], dtype=np.bool_),
        relative_speed=row([1.0 if c is None else c.relative_speed for c in curves]),
        cores=row([1.0 if c is None else c.cores for c in curves]),
        memory_bytes=row([1.0 if c is None else c.memory_bytes for c in curves]),
        start_s=row([1.0 if c is None else c.start_s for c in curves]),
        slots=row([1.0 if c is None else c.slots for c in curves]),
    )

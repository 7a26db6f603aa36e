"""The kernels of perf give the same bits compiled and not."""

from types import FunctionType
from typing import Any

import numpy as np
import pytest

from steelyard.perf import cost, predict

numba = pytest.importorskip("numba", reason="the extra `fast` is not installed")

SHAPE = (7, 257)


def compiled(kernel: FunctionType, **callees: FunctionType) -> Any:
    """The kernel compiled, with the kernels that it calls compiled, too."""
    scope = {**kernel.__globals__, **{name: numba.njit(one) for name, one in callees.items()}}
    return numba.njit(FunctionType(kernel.__code__, scope, kernel.__name__))


def rows(seed: int) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    random = np.random.default_rng(seed)
    return [random.lognormal(0.0, 3.0, SHAPE[1]) for _ in range(SHAPE[0])]


@pytest.mark.parametrize("kernel", [predict.itl_s, predict.prefill_s])
def test_predictions_are_bit_equal(kernel: FunctionType) -> None:
    a, b, c = rows(1)[:3]
    assert np.array_equal(compiled(kernel)(a, b, c), kernel(a, b, c))
    assert compiled(kernel)(0.1, 0.2, 0.3) == kernel(0.1, 0.2, 0.3)


def test_a_shared_gap_is_bit_equal() -> None:
    a, b, c, d = rows(4)[:4]
    assert isinstance(predict.itl_s, FunctionType)
    assert isinstance(predict.shared_itl_s, FunctionType)
    assert isinstance(predict.prefill_share_s, FunctionType)
    kernel = compiled(predict.shared_itl_s, itl_s=predict.itl_s)
    assert np.array_equal(kernel(a, b, c, d), predict.shared_itl_s(a, b, c, d))
    assert compiled(predict.prefill_share_s)(0.1, 0.3, 0.7) == predict.prefill_share_s(
        0.1, 0.3, 0.7
    )


def test_the_wait_is_bit_equal() -> None:
    running, waiting, service_s, cap = rows(2)[:4]
    assert isinstance(predict.queue_wait_s, FunctionType)
    assert isinstance(predict.pick, FunctionType)
    fast = compiled(predict.queue_wait_s, pick=predict.pick)(running, waiting, service_s, cap)
    assert np.array_equal(fast, predict.queue_wait_s(running, waiting, service_s, cap))


def test_used_replica_time_is_bit_equal() -> None:
    a, b, c, d, cap, uncached, output = rows(3)
    assert isinstance(cost.llm_used_s, FunctionType)
    assert isinstance(predict.itl_s, FunctionType)
    kernel = compiled(cost.llm_used_s, itl_s=predict.itl_s)
    curve = (a, b, c, d, cap)
    assert np.array_equal(kernel(curve, uncached, output), cost.llm_used_s(curve, uncached, output))
    assert isinstance(cost.tool_used_s, FunctionType)
    tool = compiled(cost.tool_used_s)
    assert np.array_equal(
        tool((a, b, c), d, cap, output), cost.tool_used_s((a, b, c), d, cap, output)
    )

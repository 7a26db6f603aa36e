"""How busy is every replica? Counts that plain Python and NumPy read from the same memory."""

import math
from array import array
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from steelyard.fleet.accounts import OpenAttempt
from steelyard.fleet.sharing import ReplicaLoad
from steelyard.fleet.view import IntArray
from steelyard.perf.predict import BoolArray, FloatArray

_NOTHING = ReplicaLoad()


class ReplicaBooks:
    """Steps that run and wait on every replica, pool after pool.

    One number of a NumPy array costs a hundred nanoseconds to read; a request reads dozens. So the
    numbers live in `array`s, and the NumPy arrays are windows on them.

    Where several processes use one replica, the counts are those of all of them together, as far as
    the others have told.

    Attributes:
        starts: Replicas of pool p are `starts[p] .. starts[p + 1]`.
        elsewhere: What other processes do there, by place; part of the counts.
        shares: How many steps this process may run there, by place, where others share a replica.
        running: Steps that run.
        waiting: Steps that wait.
        late: Those of them that let others pass, see `Decision.gives_way`.
        service_sum_s: Predicted service time of all of them.
        prefill_share_sum_s: Sum of their `prefill_share_s`.
        live_tokens: Contexts of this process's open tasks, in tokens, where their last calls went.
        up: 1 where the replica is there, 0 where not.
        offsets: `starts` for NumPy.
        running_window: `running` for NumPy; the same goes for the next six.
        waiting_window: `waiting`.
        late_window: `late`.
        service_sum_window_s: `service_sum_s`.
        prefill_share_window_s: `prefill_share_sum_s`.
        live_tokens_window: `live_tokens`.
        up_window: `up`.
    """

    __slots__ = (
        *(
            "elsewhere",
            "late",
            "late_window",
            "live_tokens",
            "live_tokens_window",
            "offsets",
            "prefill_share_sum_s",
            "prefill_share_window_s",
            "running",
            "running_window",
        ),
        *("service_sum_s", "service_sum_window_s", "shares", "starts", "up", "up_window"),
        *("waiting", "waiting_window"),
    )

    def __init__(self) -> None:
        self.starts: list[int] = [0]
        self.elsewhere: dict[int, ReplicaLoad] = {}
        self.shares: dict[int, int] = {}
        nothing = (array("d"), array("d"), array("d"), array("d"), array("d"), array("d"))
        self._take(nothing, bytearray())

    def lay_out(self, counts: list[int]) -> None:
        """Give every replica its place; those that stay keep their counts.

        Args:
            counts: Replicas of each pool.
        """
        # Told anew at the next exchange, by the places of then.
        self.share({}, {})
        old = self.starts
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count)
        counts_before = (self.running, self.waiting, self.late)
        sums_before = (self.service_sum_s, self.prefill_share_sum_s, self.live_tokens)
        old_ones = (*counts_before, *sums_before)
        nothing = bytes(8 * starts[-1])
        fresh = (array("d", nothing), array("d", nothing), array("d", nothing))
        ones = (*fresh, array("d", nothing), array("d", nothing), array("d", nothing))
        up = bytearray(b"\1" * starts[-1])
        for pool in range(len(old) - 1):
            stay = min(old[pool + 1] - old[pool], counts[pool])
            new, before = starts[pool], old[pool]
            for after, was in zip(ones, old_ones, strict=True):
                after[new : new + stay] = was[before : before + stay]
            up[new : new + stay] = self.up[before : before + stay]
        self.starts = starts
        self._take(ones, up)

    def place(self, at: int, attempt: OpenAttempt) -> None:
        """An attempt waits there."""
        self.waiting[at] += 1.0
        self.late[at] += attempt.late
        self.service_sum_s[at] += attempt.service_s
        self.prefill_share_sum_s[at] += attempt.share_s

    def start(self, at: int, attempt: OpenAttempt) -> None:
        """An attempt waits no longer; it is told among whom it starts."""
        waiting = self.waiting[at] = self.waiting[at] - 1.0
        self.late[at] -= attempt.late
        running = self.running[at] = self.running[at] + 1.0
        attempt.concurrency = int(running)
        others = running + waiting - 1.0
        rest_s = self.prefill_share_sum_s[at] - attempt.share_s
        attempt.neighbours_share_s = rest_s / max(others, 1.0) if others > 0.0 else 0.0

    def finish(self, at: int, attempt: OpenAttempt) -> None:
        """An attempt neither waits nor runs any more."""
        if attempt.started_s is None:
            self.waiting[at] -= 1.0
            self.late[at] -= attempt.late
        else:
            self.running[at] -= 1.0
        # Rounding must not leave a trace of work on an idle replica.
        others = self.elsewhere.get(at, _NOTHING)
        if self.waiting[at] + self.running[at] == others.waiting + others.running:
            self.service_sum_s[at] = others.service_sum_s
            self.prefill_share_sum_s[at] = others.prefill_share_sum_s
        else:
            self.service_sum_s[at] -= attempt.service_s
            self.prefill_share_sum_s[at] -= attempt.share_s

    def own(self, at: int) -> ReplicaLoad:
        """What does this process alone do there?"""
        others = self.elsewhere.get(at, _NOTHING)
        return ReplicaLoad(
            self.running[at] - others.running,
            self.waiting[at] - others.waiting,
            self.late[at] - others.late,
            max(0.0, self.service_sum_s[at] - others.service_sum_s),
            max(0.0, self.prefill_share_sum_s[at] - others.prefill_share_sum_s),
        )

    def has_room(self, at: int, cap: int) -> bool:
        """May one more step of this process start there?"""
        if not self.shares:
            return self.running[at] < cap
        own = self.running[at] - self.elsewhere.get(at, _NOTHING).running
        return own < min(cap, self.shares.get(at, math.inf))

    def share(self, elsewhere: Mapping[int, ReplicaLoad], shares: Mapping[int, int]) -> None:
        """Count from now on what other processes do.

        Args:
            elsewhere: What all others together do, by place.
            shares: How many steps this process may run, by place; none where nobody shares.
        """
        for at in {*self.elsewhere, *elsewhere}:
            own, others = self.own(at), elsewhere.get(at, _NOTHING)
            self.running[at] = own.running + others.running
            self.waiting[at] = own.waiting + others.waiting
            self.late[at] = own.late + others.late
            self.service_sum_s[at] = own.service_sum_s + others.service_sum_s
            self.prefill_share_sum_s[at] = own.prefill_share_sum_s + others.prefill_share_sum_s
        self.elsewhere, self.shares = dict(elsewhere), dict(shares)

    def _take(
        self,
        counts: "tuple[array[float], ...]",
        up: bytearray,
    ) -> None:
        self.running, self.waiting, self.late = counts[:3]
        self.service_sum_s, self.prefill_share_sum_s, self.live_tokens = counts[3:]
        self.up = up
        self.offsets: IntArray = np.array(self.starts, dtype=np.int64)
        self.running_window: FloatArray = window(self.running)
        self.waiting_window: FloatArray = window(self.waiting)
        self.late_window: FloatArray = window(self.late)
        self.service_sum_window_s: FloatArray = window(self.service_sum_s)
        self.prefill_share_window_s: FloatArray = window(self.prefill_share_sum_s)
        self.live_tokens_window: FloatArray = window(self.live_tokens)
        self.up_window: BoolArray = _flags(up)


def window(numbers: "array[float]") -> FloatArray:
    """An array for NumPy on the same memory: what is written to one is read from the other.

    >>> numbers = array("d", [1.0, 2.0])
    >>> seen = window(numbers)
    >>> numbers[0] = 5.0
    >>> float(seen[0])
    5.0
    """
    return np.frombuffer(numbers, dtype=np.float64) if numbers else np.zeros(0)


def _flags(flags: bytearray) -> npt.NDArray[np.bool_]:
    return np.frombuffer(flags, dtype=np.bool_) if flags else np.zeros(0, dtype=np.bool_)

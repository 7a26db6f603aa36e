"""How busy is every replica? Counts that plain Python and NumPy read from the same memory."""

from array import array

import numpy as np
import numpy.typing as npt

from steelyard.fleet.accounts import OpenAttempt
from steelyard.fleet.view import IntArray
from steelyard.perf.predict import BoolArray, FloatArray


class ReplicaBooks:
    """Steps that run and wait on every replica, pool after pool.

    One number of a NumPy array costs a hundred nanoseconds to read; a request reads dozens. So the
    numbers live in `array`s, and the NumPy arrays are windows on them.

    Attributes:
        starts: Replicas of pool p are `starts[p] .. starts[p + 1]`.
        running: Steps that run.
        waiting: Steps that wait.
        late: Those of them that let others pass, see `Decision.gives_way`.
        service_sum_s: Predicted service time of all of them.
        prefill_share_sum_s: Sum of their `prefill_share_s`.
        up: 1 where the replica is there, 0 where not.
        offsets: `starts` for NumPy.
        running_window: `running` for NumPy; the same goes for the next five.
        waiting_window: `waiting`.
        late_window: `late`.
        service_sum_window_s: `service_sum_s`.
        prefill_share_window_s: `prefill_share_sum_s`.
        up_window: `up`.
    """

    __slots__ = (
        *(
            "late",
            "late_window",
            "offsets",
            "prefill_share_sum_s",
            "prefill_share_window_s",
            "running",
            "running_window",
        ),
        *("service_sum_s", "service_sum_window_s", "starts", "up", "up_window"),
        *("waiting", "waiting_window"),
    )

    def __init__(self) -> None:
        self.starts: list[int] = [0]
        self._take((array("d"), array("d"), array("d"), array("d"), array("d")), bytearray())

    def lay_out(self, counts: list[int]) -> None:
        """Give every replica its place; those that stay keep their counts.

        Args:
            counts: Replicas of each pool.
        """
        old = self.starts
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count)
        counts_before = (self.running, self.waiting, self.late)
        old_ones = (*counts_before, self.service_sum_s, self.prefill_share_sum_s)
        nothing = bytes(8 * starts[-1])
        fresh = (array("d", nothing), array("d", nothing), array("d", nothing))
        ones = (*fresh, array("d", nothing), array("d", nothing))
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
        if self.waiting[at] + self.running[at] == 0.0:
            self.service_sum_s[at] = self.prefill_share_sum_s[at] = 0.0
        else:
            self.service_sum_s[at] -= attempt.service_s
            self.prefill_share_sum_s[at] -= attempt.share_s

    def _take(
        self,
        counts: "tuple[array[float], array[float], array[float], array[float], array[float]]",
        up: bytearray,
    ) -> None:
        self.running, self.waiting, self.late = counts[:3]
        self.service_sum_s, self.prefill_share_sum_s = counts[3:]
        self.up = up
        self.offsets: IntArray = np.array(self.starts, dtype=np.int64)
        self.running_window: FloatArray = window(self.running)
        self.waiting_window: FloatArray = window(self.waiting)
        self.late_window: FloatArray = window(self.late)
        self.service_sum_window_s: FloatArray = window(self.service_sum_s)
        self.prefill_share_window_s: FloatArray = window(self.prefill_share_sum_s)
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

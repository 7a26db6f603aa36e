"""How busy is every replica? Counts that plain Python and NumPy read from the same memory."""

from array import array

import numpy as np
import numpy.typing as npt

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
        service_sum_s: Predicted service time of all of them.
        up: 1 where the replica is there, 0 where not.
        offsets: `starts` for NumPy.
        running_window: `running` for NumPy; the same goes for the next three.
        waiting_window: `waiting`.
        service_sum_window_s: `service_sum_s`.
        up_window: `up`.
    """

    __slots__ = (
        *("offsets", "running", "running_window", "service_sum_s", "service_sum_window_s"),
        *("starts", "up", "up_window", "waiting", "waiting_window"),
    )

    def __init__(self) -> None:
        self.starts: list[int] = [0]
        self._take(array("d"), array("d"), array("d"), bytearray())

    def lay_out(self, counts: list[int]) -> None:
        """Give every replica its place; those that stay keep their counts.

        Args:
            counts: Replicas of each pool.
        """
        old = self.starts
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count)
        running, waiting, service_sum_s = (array("d", bytes(8 * starts[-1])) for _ in range(3))
        up = bytearray(b"\1" * starts[-1])
        for pool in range(len(old) - 1):
            stay = min(old[pool + 1] - old[pool], counts[pool])
            new, before = starts[pool], old[pool]
            running[new : new + stay] = self.running[before : before + stay]
            waiting[new : new + stay] = self.waiting[before : before + stay]
            service_sum_s[new : new + stay] = self.service_sum_s[before : before + stay]
            up[new : new + stay] = self.up[before : before + stay]
        self.starts = starts
        self._take(running, waiting, service_sum_s, up)

    def place(self, at: int, service_s: float) -> None:
        """A step waits there."""
        self.waiting[at] += 1.0
        self.service_sum_s[at] += service_s

    def start(self, at: int) -> int:
        """A step that waited there runs.

        Returns:
            How many run there now.
        """
        self.waiting[at] -= 1.0
        running = self.running[at] + 1.0
        self.running[at] = running
        return int(running)

    def end(self, at: int, service_s: float, *, ran: bool) -> None:
        """A step has ended."""
        counts = self.running if ran else self.waiting
        counts[at] -= 1.0
        # Rounding must not leave a trace of work on an idle replica.
        idle = self.waiting[at] + self.running[at] == 0.0
        self.service_sum_s[at] = 0.0 if idle else self.service_sum_s[at] - service_s

    def _take(
        self,
        running: "array[float]",
        waiting: "array[float]",
        service_sum_s: "array[float]",
        up: bytearray,
    ) -> None:
        self.running, self.waiting, self.service_sum_s, self.up = (
            running,
            waiting,
            service_sum_s,
            up,
        )
        self.offsets: IntArray = np.array(self.starts, dtype=np.int64)
        self.running_window: FloatArray = window(running)
        self.waiting_window: FloatArray = window(waiting)
        self.service_sum_window_s: FloatArray = window(service_sum_s)
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

"""What runs and waits on every replica: arrays that the fold keeps and views share."""

import numpy as np

from steelyard.fleet.accounts import OpenAttempt
from steelyard.fleet.view import IntArray
from steelyard.perf.predict import BoolArray, FloatArray


class ReplicaLoads:
    """Counts and sums per replica; replicas of pool p are `offsets[p] .. offsets[p + 1]`.

    Attributes:
        offsets: Where each pool's replicas begin, shape [pools + 1].
        running: Steps that run, shape [replicas].
        waiting: Steps that wait, shape [replicas].
        service_sum_s: Predicted service time of all of them, shape [replicas].
        prefill_share_sum_s: Sum of their `prefill_share_s`, shape [replicas].
        up: Whether the replica is there, shape [replicas].
    """

    def __init__(self) -> None:
        self.offsets: IntArray = np.zeros(1, dtype=np.int64)
        self.running: FloatArray = np.zeros(0)
        self.waiting: FloatArray = np.zeros(0)
        self.service_sum_s: FloatArray = np.zeros(0)
        self.prefill_share_sum_s: FloatArray = np.zeros(0)
        self.up: BoolArray = np.zeros(0, dtype=np.bool_)

    def lay_out(self, counts: list[int]) -> None:
        """Give every replica its place; those that stay keep their counts.

        Args:
            counts: Replicas of every pool; pools join at the end.
        """
        old = self.offsets
        self.offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        pairs: list[tuple[slice, slice]] = []
        for pool in range(len(old) - 1):
            kept = min(int(old[pool + 1] - old[pool]), counts[pool])
            here, there = int(self.offsets[pool]), int(old[pool])
            pairs.append((slice(here, here + kept), slice(there, there + kept)))
        self.running = self._moved(self.running, pairs)
        self.waiting = self._moved(self.waiting, pairs)
        self.service_sum_s = self._moved(self.service_sum_s, pairs)
        self.prefill_share_sum_s = self._moved(self.prefill_share_sum_s, pairs)
        up = np.ones(int(self.offsets[-1]), dtype=np.bool_)
        for here_slice, there_slice in pairs:
            up[here_slice] = self.up[there_slice]
        self.up = up

    def _moved(self, values: FloatArray, pairs: list[tuple[slice, slice]]) -> FloatArray:
        moved = np.zeros(int(self.offsets[-1]))
        for here, there in pairs:
            moved[here] = values[there]
        return moved

    def place(self, at: int, attempt: OpenAttempt) -> None:
        """An attempt waits at a replica from now on."""
        self.waiting[at] += 1.0
        self.service_sum_s[at] += attempt.service_s
        self.prefill_share_sum_s[at] += attempt.share_s

    def start(self, at: int, attempt: OpenAttempt) -> None:
        """An attempt waits no longer; it is told among whom it starts."""
        self.waiting[at] -= 1.0
        self.running[at] += 1.0
        attempt.concurrency = int(self.running[at])
        others = float(self.running[at] + self.waiting[at]) - 1.0
        rest_s = float(self.prefill_share_sum_s[at]) - attempt.share_s
        attempt.neighbours_share_s = rest_s / max(others, 1.0) if others > 0.0 else 0.0

    def finish(self, at: int, attempt: OpenAttempt) -> None:
        """An attempt neither waits nor runs any more."""
        counts = self.waiting if attempt.started_s is None else self.running
        counts[at] -= 1.0
        # Rounding must not leave a trace of work on an idle replica.
        if self.waiting[at] + self.running[at] == 0.0:
            self.service_sum_s[at] = self.prefill_share_sum_s[at] = 0.0
        else:
            self.service_sum_s[at] -= attempt.service_s
            self.prefill_share_sum_s[at] -= attempt.share_s

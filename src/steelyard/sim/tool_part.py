"""Tools on one replica: a start, CPU time on shared cores, and time spent waiting."""

import heapq
import math
from typing import Literal

from steelyard.domain.pool import ToolCurve
from steelyard.sim.attempts import SimAttempt
from steelyard.sim.sharing import SharedProgress

_Phase = Literal["start", "wait"]


class ToolPart:
    """The tools that one replica runs at once.

    A tool starts for `start_s`, then computes: each runnable tool has a core of its own, and when
    there are more of them than cores, all share the cores evenly. Then it waits (for a disk, a
    network, a far service) without a core. It holds its memory from start to end.

    Thin: a tool has one thread, and computes before it waits.
    """

    def __init__(self, curve: ToolCurve) -> None:
        self._curve = curve
        self._delays: list[tuple[float, int, SimAttempt, _Phase]] = []
        self._delayed = 0
        self._computing: SharedProgress[SimAttempt] = SharedProgress()
        self._memory_bytes = 0
        self._tools = 0

    def has_memory(self, memory_bytes: int) -> bool:
        """Does another tool find the memory it needs? One that is alone always does."""
        return self._tools == 0 or self._memory_bytes + memory_bytes <= self._curve.memory_bytes

    def start(self, now_s: float, attempt: SimAttempt) -> None:
        """Give a tool a slot.

        Args:
            now_s: Simulated time.
            attempt: The tool.
        """
        attempt.work_left = attempt.truth.cpu_s * attempt.slowness
        self._memory_bytes += attempt.truth.memory_bytes
        self._tools += 1
        self._delay(now_s + self._curve.start_s * attempt.slowness, attempt, "start")

    def next_s(self) -> float:
        """When does a phase end next? Infinite when nothing runs."""
        delay_end_s = self._delays[0][0] if self._delays else math.inf
        return min(delay_end_s, self._computing.next_s())

    def advance(self, now_s: float) -> list[SimAttempt]:
        """Let phases end that end by now.

        Args:
            now_s: Simulated time.

        Returns:
            Tools that have ended, in order.
        """
        ended: list[SimAttempt] = []
        self._end_computing(now_s)
        while self._delays and self._delays[0][0] <= now_s:
            _, _, attempt, phase = heapq.heappop(self._delays)
            if phase == "start":
                self._computing.join(now_s, attempt, attempt.work_left)
                self._end_computing(now_s)
            else:
                ended.append(attempt)
        for attempt in ended:
            self._memory_bytes -= attempt.truth.memory_bytes
        self._tools -= len(ended)
        runnable = len(self._computing)
        share = min(1.0, self._curve.cores / runnable) if runnable else 0.0
        self._computing.set_rate(now_s, self._curve.relative_speed * share)
        return ended

    def drain(self, now_s: float) -> list[SimAttempt]:
        """Take out everything that runs, as the loss of the machine does."""
        lost = [entry[2] for entry in sorted(self._delays, key=lambda entry: entry[1])]
        for attempt, left in self._computing.drain(now_s):
            attempt.work_left = left
            lost.append(attempt)
        self._delays.clear()
        self._memory_bytes = self._tools = 0
        return lost

    def _delay(self, end_s: float, attempt: SimAttempt, phase: _Phase) -> None:
        heapq.heappush(self._delays, (end_s, self._delayed, attempt, phase))
        self._delayed += 1

    def _end_computing(self, now_s: float) -> None:
        for attempt in self._computing.pop_due(now_s):
            attempt.work_left = 0.0
            wait_s = attempt.truth.think_or_tool_s * attempt.slowness
            self._delay(now_s + wait_s, attempt, "wait")

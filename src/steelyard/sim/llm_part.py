"""Continuous batching on one replica, as shared progress."""

import heapq
import math
from collections import deque

from steelyard.domain.pool import LlmCurve
from steelyard.perf.predict import itl_s
from steelyard.sim.attempts import SimAttempt
from steelyard.sim.serving import WHOLE_PROMPTS, Serving
from steelyard.sim.sharing import SharedProgress

# An infinite pace would make 0 * inf of a stream that ends at once.
_SHORTEST_GAP_S = 1e-12


class LlmPart:
    """The streams that one replica serves at once.

    A stream goes through three phases. Its floor (`ttft_floor_s`) stalls nobody, unless `Serving`
    tells that it is work of the replica: then it is part of the prefill, less the gap that is
    counted for the first token, and waits for half a gap where others decode. Its prefill has
    the replica for itself and stalls every decode, first come first served; cut into chunks
    (`Serving`), each chunk is computed in one pass with a token of every decode, so that decodes
    go on slowly and the prefill ends later by what they take. Then it decodes at
    `1 / itl(c)` tokens per second, where c counts every stream that has a place on the replica, in
    whatever phase. On a full replica the seconds so used add up to `steelyard.perf.cost`. A vendor
    spreads its streams over machines that nobody sees: there, prefill is part of the floor.

    Thin: chunks are not counted one by one, both phases flow at the pace that they give. Models
    that share a replica share its places and its prefill, each at its own pace.
    """

    def __init__(
        self,
        curves: dict[str, LlmCurve],
        *,
        is_vendor: bool = False,
        serving: Serving = WHOLE_PROMPTS,
    ) -> None:
        self._curves = curves
        self._chunk_tokens = serving.prefill_chunk_tokens
        self._floor_stalls = serving.floor_stalls and not is_vendor
        self._is_vendor = is_vendor
        self._floors: list[tuple[float, int, SimAttempt]] = []
        self._started = 0
        self._prefills: deque[SimAttempt] = deque()
        self._prefilling: SimAttempt | None = None
        self._prefill_end_s = math.inf
        # Seconds of prefill still to be done, since when, and how many are done per second.
        self._prefill_left_s: float = 0.0
        self._prefill_at_s: float = 0.0
        self._prefill_rate: float = 1.0
        self._decodes: dict[str, SharedProgress[SimAttempt]] = {
            model: SharedProgress() for model in curves
        }
        self._streams = 0

    def start(self, now_s: float, attempt: SimAttempt) -> None:
        """Give a stream a place.

        Args:
            now_s: Simulated time.
            attempt: The stream, with its cached tokens known.
        """
        curve = self._curves[attempt.truth.model]
        attempt.work_left = attempt.truth.output_tokens * attempt.slowness
        floor_s = self._pass_left_s(curve) if self._floor_stalls else curve.ttft_floor_s
        if self._is_vendor:
            floor_s += _uncached(attempt) * curve.prefill_s_per_token
        floor_end_s = now_s + floor_s * attempt.slowness
        heapq.heappush(self._floors, (floor_end_s, self._started, attempt))
        self._started += 1
        self._streams += 1

    def next_s(self) -> float:
        """When does a phase end next? Infinite when nothing runs."""
        soonest_s = self._prefill_end_s
        if self._floors:
            soonest_s = min(soonest_s, self._floors[0][0])
        for shared in self._decodes.values():
            soonest_s = min(soonest_s, shared.next_s())
        return soonest_s

    def advance(self, now_s: float) -> list[SimAttempt]:
        """Let phases end that end by now.

        Args:
            now_s: Simulated time.

        Returns:
            Streams that have ended, in order.
        """
        ended = self._end_decodes(now_s)
        while self._floors and self._floors[0][0] <= now_s:
            self._prefills.append(heapq.heappop(self._floors)[2])
        while True:
            if self._prefilling is None and self._prefills:
                self._begin_prefill(now_s, self._prefills.popleft())
            if self._prefilling is None or self._prefill_end_s > now_s:
                break
            self._end_prefill(now_s, self._prefilling)
        ended.extend(self._end_decodes(now_s))
        self._streams -= len(ended)
        self._set_pace(now_s)
        return ended

    def drain(self, now_s: float) -> list[SimAttempt]:
        """Take out everything that runs, as the loss of the machine does."""
        lost = [attempt for _, _, attempt in sorted(self._floors, key=lambda entry: entry[1])]
        lost.extend(self._prefills)
        if self._prefilling is not None:
            lost.append(self._prefilling)
        for shared in self._decodes.values():
            for attempt, left in shared.drain(now_s):
                attempt.work_left = left
                lost.append(attempt)
        self._floors.clear()
        self._prefills.clear()
        self._prefilling, self._prefill_end_s, self._streams = None, math.inf, 0
        return lost

    def _pass_left_s(self, curve: LlmCurve) -> float:
        """How long does a prompt wait, on average, for the pass that has begun? Half a gap."""
        if not any(len(shared) for shared in self._decodes.values()):
            return 0.0
        return itl_s(curve.itl_base_s, curve.itl_slope_s, float(self._streams)) / 2.0

    def _begin_prefill(self, now_s: float, attempt: SimAttempt) -> None:
        curve = self._curves[attempt.truth.model]
        uncached = 0 if self._is_vendor else _uncached(attempt)
        self._prefilling = attempt
        floor_s = 0.0
        if self._floor_stalls:
            # The first token is counted as a gap, too: the one that decodes get in this very pass.
            gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, 1.0)
            floor_s = max(0.0, curve.ttft_floor_s - gap_s)
        work_s = floor_s + uncached * curve.prefill_s_per_token
        self._prefill_left_s = work_s * attempt.slowness
        self._prefill_at_s, self._prefill_rate = now_s, 1.0
        self._prefill_end_s = now_s + self._prefill_left_s

    def _end_prefill(self, now_s: float, attempt: SimAttempt) -> None:
        attempt.first_token_s = now_s
        self._decodes[attempt.truth.model].join(now_s, attempt, attempt.work_left)
        self._prefilling, self._prefill_end_s = None, math.inf

    def _end_decodes(self, now_s: float) -> list[SimAttempt]:
        ended: list[SimAttempt] = []
        for shared in self._decodes.values():
            ended.extend(shared.pop_due(now_s))
        for attempt in ended:
            attempt.work_left = 0.0
        return ended

    def _set_pace(self, now_s: float) -> None:
        gaps_s = {
            model: itl_s(curve.itl_base_s, curve.itl_slope_s, float(self._streams))
            for model, curve in self._curves.items()
        }
        chunk_s = self._chunk_s()
        decoding_s = [gaps_s[model] for model, shared in self._decodes.items() if len(shared)]
        if chunk_s < math.inf and decoding_s:
            self._set_prefill_rate(now_s, chunk_s / max(chunk_s + max(decoding_s), _SHORTEST_GAP_S))
        elif self._prefilling is not None:
            self._set_prefill_rate(now_s, 1.0)
        for model, shared in self._decodes.items():
            # A whole prompt is a chunk without end.
            between_s = chunk_s if self._prefilling is not None else 0.0
            rate = 1.0 / max(gaps_s[model] + between_s, _SHORTEST_GAP_S)
            shared.set_rate(now_s, rate)

    def _chunk_s(self) -> float:
        """How long does a chunk of the prefill take? Infinite for a whole prompt."""
        attempt = self._prefilling
        if attempt is None or self._chunk_tokens is None:
            return math.inf
        decodes = sum(len(shared) for shared in self._decodes.values())
        tokens = max(1, self._chunk_tokens - decodes)
        per_token_s = self._curves[attempt.truth.model].prefill_s_per_token
        return tokens * per_token_s * attempt.slowness

    def _set_prefill_rate(self, now_s: float, rate: float) -> None:
        if rate != self._prefill_rate and rate > 0.0:
            self._prefill_left_s -= (now_s - self._prefill_at_s) * self._prefill_rate
            self._prefill_at_s, self._prefill_rate = now_s, rate
            self._prefill_end_s = now_s + max(0.0, self._prefill_left_s) / rate


def _uncached(attempt: SimAttempt) -> int:
    return max(0, attempt.truth.prompt_tokens - attempt.cached_tokens)

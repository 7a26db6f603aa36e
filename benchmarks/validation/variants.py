"""Which part of what the simulator is told brings it close to live? One thing changed at a time.

Run as `python benchmarks/validation/variants.py FOLDER...`, folders of `benchmarks/validate.py
--out`, run with its own pools. Printed per variant: the signed mean and the mean size of the error
of the mean task latency over all live runs in the folders.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
from profiles import Round, fitted
from simulated_side import Fit, Recording

from steelyard.cli.demo.live import local_pools
from steelyard.config.settings import Settings
from steelyard.domain.pool import LlmCurve
from steelyard.perf.predict import itl_s

_STREAMS = (1, 2, 3, 4)
_LEAST_REPETITIONS = 3


def _first(known: LlmCurve, rounds: Sequence[Round]) -> LlmCurve:
    return fitted(known, _enough(rounds[:1]))


def _around(known: LlmCurve, rounds: Sequence[Round]) -> LlmCurve:
    return fitted(known, _enough((rounds[0], rounds[-1])))


def _enough(rounds: Sequence[Round]) -> list[Round]:
    """The same rounds, often enough for a fit: means do not change."""
    return [
        tuple(msgspec.structs.replace(one, repetition=1000 * copy + one.repetition) for one in part)
        for copy in range(_LEAST_REPETITIONS)
        for part in rounds
    ]


def _medians(known: LlmCurve, rounds: Sequence[Round]) -> LlmCurve:
    return fitted(known, rounds, "median")


def _few_streams(known: LlmCurve, rounds: Sequence[Round]) -> LlmCurve:
    kept = [
        tuple(one for one in part if one.phase != "decode" or one.concurrency in _STREAMS)
        for part in rounds
    ]
    return fitted(known, kept)


def _gap_twice(known: LlmCurve, rounds: Sequence[Round]) -> LlmCurve:
    curve = fitted(known, rounds)
    gap_s = itl_s(curve.itl_base_s, curve.itl_slope_s, 1.0)
    return msgspec.structs.replace(curve, ttft_floor_s=curve.ttft_floor_s + gap_s)


def _corrected(recording: Recording) -> Fit:
    def fit(known: LlmCurve, rounds: Sequence[Round]) -> LlmCurve:
        curve = fitted(known, rounds)
        factor = recording.factor(curve)
        return msgspec.structs.replace(
            curve,
            ttft_floor_s=curve.ttft_floor_s * factor,
            prefill_s_per_token=curve.prefill_s_per_token * factor,
            itl_base_s=curve.itl_base_s * factor,
            itl_slope_s=curve.itl_slope_s * factor,
        )

    return fit


def _variants(recording: Recording) -> dict[str, Fit]:
    return {
        "as it is": fitted,
        "the warm-up's factor on top": _corrected(recording),
        "the first round alone": _first,
        "the first and the last round": _around,
        "medians": _medians,
        "streams of 1 to 4 alone": _few_streams,
        "the first gap counted twice": _gap_twice,
    }


def main() -> None:
    """Simulate every variant of every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    asked = parser.parse_args()
    errors: dict[str, list[float]] = {}
    for folder in asked.folders:
        recording = Recording(folder, Settings(pools=local_pools()), seed=1)
        for name, fit in _variants(recording).items():
            errors.setdefault(name, []).extend(
                100.0 * recording.simulated(load, one, name, fit).error("task_s mean")
                for load, one in recording.passes
            )
    for name, seen in errors.items():
        size = statistics.fmean(abs(error) for error in seen)
        each = " ".join(f"{error:+.1f}" for error in seen)
        print(f"{name:30} {statistics.fmean(seen):+6.1f} {size:6.1f}   {each}")


if __name__ == "__main__":
    main()

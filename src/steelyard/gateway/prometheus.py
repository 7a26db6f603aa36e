"""Counters, gauges and histograms, and how Prometheus reads them.

The text format is small and stable (Prometheus exposition format 0.0.4), so a client library would
cost more than it saves.
"""

from bisect import bisect_left
from collections.abc import Iterator

import msgspec

Labels = tuple[tuple[str, str], ...]


class Histogram(msgspec.Struct):
    """Counts of observations at or below each bound.

    Attributes:
        bounds: Upper bounds of the buckets, ascending.
        counts: Observations per bucket; the last one holds those above every bound.
        total: Sum of all observations.
    """

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> "Histogram":
        """A histogram without observations."""
        return cls(bounds=bounds, counts=[0] * (len(bounds) + 1))

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Family:
    """One metric with its values by label.

    Args:
        name: Name with its unit.
        kind: `counter`, `gauge` or `histogram`.
        told: What it counts, in one line.
        bounds: Upper bounds of a histogram's buckets.
    """

    def __init__(self, name: str, kind: str, told: str, bounds: tuple[float, ...] = ()) -> None:
        self._name = name
        self._kind = kind
        self._told = told
        self._bounds = bounds
        self._values: dict[Labels, list[float]] = {}
        self._histograms: dict[Labels, Histogram] = {}

    def add(self, amount: float, **labels: str) -> None:
        """Change a counter or gauge by an amount."""
        self.cell(**labels)[0] += amount

    def cell(self, **labels: str) -> list[float]:
        """The place of one counter's or gauge's value, for callers that change it often."""
        key = tuple(labels.items())
        return self._values.setdefault(key, [0.0])

    def histogram(self, **labels: str) -> Histogram:
        """One histogram, for callers that observe often."""
        key = tuple(labels.items())
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = Histogram.empty(self._bounds)
        return found

    def set(self, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.cell(**labels)[0] = value

    def observe(self, value: float, **labels: str) -> None:
        """Count one observation of a histogram."""
        self.histogram(**labels).observe(value)

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format, labels in order."""
        yield f"# HELP {self._name} {self._told}"
        yield f"# TYPE {self._name} {self._kind}"
        for labels in sorted(self._values):
            yield f"{self._name}{_label_text(labels)} {_number(self._values[labels][0])}"
        for labels in sorted(self._histograms):
            yield from self._histogram_lines(labels, self._histograms[labels])

    def _histogram_lines(self, labels: Labels, histogram: Histogram) -> Iterator[str]:
        seen = 0
        bounds = [*(_number(bound) for bound in histogram.bounds), "+Inf"]
        for bound, count in zip(bounds, histogram.counts, strict=True):
            seen += count
            yield f"{self._name}_bucket{_label_text((*labels, ('le', bound)))} {seen}"
        yield f"{self._name}_sum{_label_text(labels)} {_number(histogram.total)}"
        yield f"{self._name}_count{_label_text(labels)} {seen}"


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{told}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)

"""From events as they happen to a collector, off the path of requests.

A request pays for one append to a queue. A thread of its own folds what came in the meantime; the
SDK's threads encode and send.
"""

import logging
import threading
from collections import deque
from typing import Protocol

from steelyard.domain.events import Event
from steelyard.ledger.ledger import AttemptRecord
from steelyard.telemetry.fold import SpanFold
from steelyard.telemetry.span import Span

_LOGGER = logging.getLogger("steelyard.telemetry")
_PAUSE_S = 0.5
# At 10,000 events a second, ten seconds in which the thread gets no turn.
_MOST_WAITING = 100_000


class Spans(Protocol):
    """Takes spans; `steelyard.telemetry.sdk.SpanSender`."""

    def send(self, span: Span) -> None:
        """Take a span."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Counts(Protocol):
    """Takes attempts; `steelyard.telemetry.meters.Meters`."""

    def count(self, record: AttemptRecord) -> None:
        """Take an attempt that ended."""
        ...

    def close(self) -> None:
        """Send what was counted."""
        ...


class LiveTelemetry:
    """Folds events in a thread and hands on what comes of it; `hear` is called with each event.

    Args:
        fold: Makes spans.
        spans: Sends them; None where no traces are wanted.
        counts: Counts attempts; None where no metrics are wanted.
    """

    def __init__(self, fold: SpanFold, spans: Spans | None, counts: Counts | None) -> None:
        self._fold = fold
        self._spans = spans
        self._counts = counts
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steelyard-telemetry", daemon=True)

    def start(self) -> None:
        """Begin to hand on."""
        self._thread.start()

    def hear(self, event: Event) -> None:
        """Take an event; it is lost where too many wait already, and the loss is logged."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(event)
        else:
            self._lost += 1

    def close(self) -> None:
        """Hand on what is left, and end."""
        self._stop.set()
        self._thread.join()
        for sink in (self._spans, self._counts):
            if sink is not None:
                sink.close()

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_S):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        if self._lost:
            _LOGGER.warning("telemetry: %d events were lost, too many waited", self._lost)
            self._lost = 0
        while self._waiting:
            folded = self._fold.apply(self._waiting.popleft())
            if self._counts is not None and folded.attempt is not None:
                self._counts.count(folded.attempt)
            if self._spans is not None:
                for span in folded.spans:
                    self._spans.send(span)

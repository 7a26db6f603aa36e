"""One door for everything that happens: fleet state, log and listeners see the same events."""

from collections.abc import Callable

from steelyard.domain.clock import Clock
from steelyard.domain.events import Event
from steelyard.fleet.state import FleetState
from steelyard.store.event_log import EventLog


class Recorder:
    """Applies every event to the fleet state and appends it to the log, in the same order.

    Args:
        clock: The log's clock.
        log: Where events are kept.
    """

    def __init__(self, clock: Clock, log: EventLog) -> None:
        self.state = FleetState()
        self.log = log
        self._clock = clock
        self._listeners: list[Callable[[Event], None]] = []

    def now_s(self) -> float:
        """What time is it on the log's clock?"""
        return self._clock.now_s()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every later event, after the state has taken it."""
        self._listeners.append(listener)

    def record(self, event: Event) -> None:
        """Make an event part of the log and of the state.

        Args:
            event: What happened.

        Raises:
            StoreError: The log cannot take it; the state is then unchanged.
        """
        self.log.append(event)
        self.state.apply(event)
        for listener in self._listeners:
            listener(event)

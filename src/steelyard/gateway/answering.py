"""Answering on one connection: whose turn it is, who answers, and how long it may be idle.

uvicorn's protocol, extended by requests of the data plane, which wait in its line with its own.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from steelyard.gateway.exchange import Exchange
from steelyard.gateway.settings import GatewayLimits

Serve = Callable[[Exchange], Coroutine[Any, Any, None]]
ServeNow = Callable[[Exchange], bool]


class AnsweringProtocol(HttpToolsProtocol):
    """One connection of a client, as those see it who answer; `exchange.Connection` is a part.

    `limits`, `serve` and `serve_now` are set by `gateway_protocol`.
    """

    limits = GatewayLimits()
    serve: Serve
    serve_now: ServeNow
    _in_head = True
    _timer: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0
    # The one that is being answered.
    _running: Exchange | None = None
    # Nothing is answered after what is on its way.
    _refused = False

    def pause_writing(self) -> None:
        """The client reads too slowly: hold back what is behind it."""
        super().pause_writing()
        if self._running is not None and self._running.flow is not None:
            self._running.flow.pause()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._running is not None and self._running.flow is not None:
            self._running.flow.resume()

    def _take_turn(self, exchange: Exchange) -> None:
        """Answer a whole request now, or when the ones before it are answered."""
        if self._is_busy():
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            return
        self._start(exchange)

    # ------------------------------------------------- exchange.Connection

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait while the client reads too slowly."""
        if self.flow.write_paused:
            await self.flow.drain()

    def answered(self, *, keep: bool) -> None:
        """A response of the data plane is complete."""
        if not keep or self._refused:
            self.transport.close()
            return
        self.on_response_complete()

    def run(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """Let a task answer a request."""
        task = self.loop.create_task(work)
        exchange.task = task
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def holds(self, quick: Any, *, on: bool, later: bool = False) -> None:  # noqa: ANN401
        """A request is answered without a task, from now on or no longer; a stop ends it, too."""
        if on:
            self.tasks.add(quick)
        elif not later:
            self.tasks.discard(quick)
        else:
            # As tasks do: a stop that cancels all of them is going through this set.
            self.loop.call_soon(self.tasks.discard, quick)

    def on_response_complete(self) -> None:
        """A response is complete: the next request's turn, or the clock of an idle connection."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._refused:
            self.transport.close()
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
            if self._timer is not None:
                self._stop_timer()
                self._start_timer(self._part_timeout_s())
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it was idle for long; one timer is enough for that."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        is_busy = self._is_busy()
        idle_s = self.loop.time() - self._idle_since_s
        left_s = self.timeout_keep_alive if is_busy else self.timeout_keep_alive - idle_s
        # A request that has begun has a clock of its own.
        if left_s <= 0.001 and self._timer is None:
            self.transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            max(left_s, 0.1), self.timeout_keep_alive_handler
        )

    # ---------------------------------------------------------------- private

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        """Start the next one in line, whoever serves it."""
        waiting: object = cycle
        if isinstance(waiting, Exchange):
            self._start(waiting)
        else:
            self.cycle = cycle
            super()._start_asgi_task(cycle, app)

    def _start(self, exchange: Exchange) -> None:
        self._running = exchange
        self.cycle = exchange  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        if not type(self).serve_now(exchange):
            self.run(exchange, type(self).serve(exchange))

    def _is_busy(self) -> bool:
        """Is a response under way?"""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _part_timeout_s(self) -> float:
        limits = self.limits
        return limits.head_timeout_s if self._in_head else limits.body_timeout_s

    def _too_slow(self) -> None:
        """Head or body did not come in time."""
        self._timer = None
        self.transport.close()

    def _start_timer(self, after_s: float) -> None:
        self._timer = self.loop.call_later(after_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

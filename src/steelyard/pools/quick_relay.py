"""An answer handed on without a task that waits for it: sent in one call, ended in a callback."""

import asyncio
from typing import Protocol

from steelyard.errors import PoolError
from steelyard.pools.backend import Ended
from steelyard.pools.http_connection import HttpConnection, StaleConnectionError
from steelyard.pools.relay import Relay


class Sender(Protocol):
    """Who sends."""

    def resend(self, quick: "QuickRelay") -> "asyncio.Task[None]":
        """Send once more, on a new connection: the reused one had ended."""
        ...

    def note_failure(self, quick: "QuickRelay", error: PoolError) -> None:
        """It failed."""
        ...


class QuickRelay:
    """One request under way.

    Args:
        sender: Who sends it.
        ended: Told how it ends.
        to: Which server, which path, and how long its first byte may take.
        body: What is sent.
    """

    __slots__ = (
        *("_again", "_connection", "_ended", "_is_done", "_sender"),
        *("body", "path", "relay", "replica", "wait_s"),
    )

    def __init__(
        self, sender: Sender, ended: Ended, to: tuple[int, str, float], body: bytes
    ) -> None:
        self.relay: Relay | None = None
        self.replica, self.path, self.wait_s = to
        self.body = body
        self._sender = sender
        self._ended = ended
        self._is_done = False
        self._connection: HttpConnection | None = None
        self._again: asyncio.Task[None] | None = None

    def sent(self, connection: HttpConnection) -> None:
        """It goes over this connection."""
        self._connection = connection
        if self.relay is None:
            connection.abort()
        elif self.relay.hands_on:
            self.relay.flows(connection)

    def cut(self) -> None:
        """Stop the work upstream at once; nobody is told."""
        self._is_done = True
        self._drop()
        if self._again is not None:
            self._again.cancel()
        # As in `set_result`.
        self.relay = None

    # ------------------------------------------------ relay.Finished

    def done(self) -> bool:
        """Was it told?"""
        return self._is_done

    def set_result(self, result: None, /) -> None:
        """The answer is whole."""
        del result
        relay = self.relay
        if relay is None:
            return
        try:
            answer = relay.answer()
        except PoolError as error:
            self.set_exception(error)
            return
        self._is_done = True
        # Where the server left the message open behind the last event.
        self._drop()
        # It holds this one; without a cycle both go at once.
        self.relay = None
        self._ended(answer, None)

    def set_exception(self, exception: PoolError, /) -> None:
        """It will not come; a connection that ended unused gets one more try, on a new one."""
        relay = self.relay
        if relay is None:
            return
        if isinstance(exception, StaleConnectionError) and self._again is None:
            self._again = self._sender.resend(self)
            return
        self._is_done = True
        self._drop()
        self._sender.note_failure(self, exception)
        self.relay = None
        self._ended(None, exception)

    def _drop(self) -> None:
        if self._connection is not None and self.relay is not None:
            self._connection.drop(self.relay)

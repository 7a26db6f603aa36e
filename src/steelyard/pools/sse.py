"""Server-sent events: from bytes as they come to the data of whole events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (only `data` is used).
"""

from steelyard.errors import PoolProtocolError

MAX_EVENT_BYTES = 16 * 1024 * 1024


class SseParser:
    r"""Collects bytes and gives out whole events.

    >>> SseParser().feed(b'data: {"a":1}\n\n: comment\n\ndata: [DO')
    ['{"a":1}']
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, received: bytes) -> list[str]:
        """Which events are whole now?

        Args:
            received: The next bytes of the stream, cut anywhere.

        Returns:
            The data of each event, in order.

        Raises:
            PoolProtocolError: An event is too large or not UTF-8.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) + self._data_bytes > MAX_EVENT_BYTES:
            raise PoolProtocolError(f"The upstream sent an event of over {MAX_EVENT_BYTES} bytes.")
        events: list[str] = []
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._data_bytes += len(line)
            elif not line and self._data:
                events.append(self._take())
        return events

    def finish(self) -> list[str]:
        """Which event is whole only because the stream ended? Servers forget the last newline."""
        events = self.feed(b"\n\n")
        self._rest = b""
        return events

    def _take(self) -> str:
        data, self._data, self._data_bytes = self._data, [], 0
        try:
            return b"\n".join(data).decode("utf-8")
        except UnicodeDecodeError as error:
            raise PoolProtocolError(
                f"The upstream sent an event that is not UTF-8: {error}."
            ) from error

"""Output items of a response, built piece by piece, and the events that tell of each piece.

Order of events as in OpenAI's streaming guide (https://platform.openai.com/docs/guides/
streaming-responses): an item is added, its parts grow, each part is done, then the item is done,
before the next item begins.
"""

import secrets
from typing import Any, Protocol

from steelyard.errors import PoolProtocolError
from steelyard.pools.backend import ToolCallDelta

_Json = dict[str, Any]


def new_id(prefix: str) -> str:
    """An id that nobody can guess, in the form of OpenAI's."""
    return f"{prefix}_{secrets.token_hex(24)}"


class Item(Protocol):
    """One output item."""

    json: _Json

    def begin(self) -> list[_Json]:
        """Events after `response.output_item.added`."""
        ...

    def end(self) -> list[_Json]:
        """Events before `response.output_item.done`; the item is whole afterwards."""
        ...


class TextItem:
    """A message of the assistant, or its thoughts: one part of text.

    Args:
        kind: `message` or `reasoning`.
        index: Number of the item in the output.
    """

    def __init__(self, kind: str, index: int) -> None:
        self._pieces: list[str] = []
        self._logprobs: list[_Json] = []
        self._is_message = kind == "message"
        prefix, event = ("msg", "output_text") if self._is_message else ("rs", "reasoning_text")
        self._event = f"response.{event}"
        self._part_type = event
        self.json: _Json = {"id": new_id(prefix), "type": kind, "status": "in_progress"}
        if self._is_message:
            self.json |= {"role": "assistant", "content": []}
        else:
            self.json |= {"summary": [], "content": []}
        self._at: _Json = {
            "item_id": self.json["id"],
            "output_index": index,
            "content_index": 0,
        }

    def begin(self) -> list[_Json]:
        """The part begins, empty."""
        return [{"type": "response.content_part.added", **self._at, "part": self._part("")}]

    def add(self, text: str, logprobs: list[_Json]) -> list[_Json]:
        """The text grows."""
        self._pieces.append(text)
        self._logprobs.extend(logprobs)
        told: _Json = {"type": f"{self._event}.delta", **self._at, "delta": text}
        if self._is_message:
            told["logprobs"] = logprobs
        return [told]

    def end(self) -> list[_Json]:
        """The part is done."""
        text = "".join(self._pieces)
        part = self._part(text)
        self.json["content"] = [part]
        told: _Json = {"type": f"{self._event}.done", **self._at, "text": text}
        if self._is_message:
            told["logprobs"] = self._logprobs
        return [told, {"type": "response.content_part.done", **self._at, "part": part}]

    def _part(self, text: str) -> _Json:
        part: _Json = {"type": self._part_type, "text": text}
        if self._is_message:
            part |= {"annotations": [], "logprobs": self._logprobs if text else []}
        return part


class CallItem:
    """A call of a function.

    Args:
        delta: Its first piece.
        index: Number of the item in the output.
    """

    def __init__(self, delta: ToolCallDelta, index: int) -> None:
        self._arguments: list[str] = []
        self.json: _Json = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            # Servers without ids of calls exist; the caller needs one to answer it.
            "call_id": delta.id or new_id("call"),
            "name": delta.name,
            "arguments": "",
        }
        self._at: _Json = {"item_id": self.json["id"], "output_index": index}
        self._event = "response.function_call_arguments"

    def begin(self) -> list[_Json]:
        """Nothing: arguments have no parts."""
        return []

    def add(self, arguments: str) -> list[_Json]:
        """The arguments grow."""
        if not arguments:
            return []
        self._arguments.append(arguments)
        return [{"type": f"{self._event}.delta", **self._at, "delta": arguments}]

    def end(self) -> list[_Json]:
        """The arguments are done."""
        text = "".join(self._arguments)
        self.json["arguments"] = text
        done = {**self._at, "name": self.json["name"], "arguments": text}
        return [{"type": f"{self._event}.done", **done}]


class Output:
    """The output of a response so far. Every method returns the events that tell of it."""

    def __init__(self) -> None:
        self.items: list[_Json] = []
        self._open: Item | None = None
        self._calls: dict[int, CallItem] = {}

    def text(self, kind: str, piece: str, logprobs: list[_Json]) -> list[_Json]:
        """The next piece of a message (`message`) or of thoughts (`reasoning`)."""
        events: list[_Json] = []
        if not isinstance(self._open, TextItem) or self._open.json["type"] != kind:
            item = TextItem(kind, self._next_index())
            events = self._switch(item)
        else:
            item = self._open
        return events + item.add(piece, logprobs)

    def call(self, delta: ToolCallDelta) -> list[_Json]:
        """The next piece of a function call.

        Raises:
            PoolProtocolError: It belongs to a call that is done.
        """
        events: list[_Json] = []
        item = self._calls.get(delta.index)
        if item is None:
            item = self._calls[delta.index] = CallItem(delta, self._next_index())
            events = self._switch(item)
        elif item is not self._open:
            raise PoolProtocolError(
                f"The pool sent more of tool call {delta.index} after it had begun another one."
            )
        elif delta.name:
            item.json["name"] += delta.name
        return events + item.add(delta.arguments)

    def end(self, status: str) -> list[_Json]:
        """The answer is whole, or cut off."""
        events: list[_Json] = []
        begun = self.items if self._open is None else [*self.items, self._open.json]
        if all(item["type"] == "reasoning" for item in begun):
            # Also an empty answer is a message: clients expect one.
            events = self._switch(TextItem("message", len(begun)))
        return events + self._close(status)

    def _next_index(self) -> int:
        return len(self.items) + (0 if self._open is None else 1)

    def _switch(self, item: Item) -> list[_Json]:
        events = self._close("completed")
        self._open = item
        # A copy: what is sent now must not show what the item becomes.
        added = {"output_index": len(self.items), "item": dict(item.json)}
        return [*events, {"type": "response.output_item.added", **added}, *item.begin()]

    def _close(self, status: str) -> list[_Json]:
        item, self._open = self._open, None
        if item is None:
            return []
        events = item.end()
        item.json["status"] = status
        done = {"output_index": len(self.items), "item": item.json}
        self.items.append(item.json)
        return [*events, {"type": "response.output_item.done", **done}]

"""The answer of an LLM step, put together from its chunks, as it is journalled."""

import msgspec

from steelyard.pools.backend import LlmChunk


class JournalledCall(msgspec.Struct):
    """A tool call that the model asked for; `arguments` is JSON text."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class LlmAnswer(msgspec.Struct):
    """What a model answered.

    Attributes:
        text: The text; of the first answer when several were asked for.
        tool_calls: Tool calls, in order.
        finish_reason: Why it ended.
    """

    text: str = ""
    tool_calls: list[JournalledCall] = []
    finish_reason: str = ""


class Transcript:
    """Collects chunks of the first answer of a call."""

    def __init__(self) -> None:
        self.answer = LlmAnswer()
        self._pieces: list[str] = []

    def add(self, chunk: LlmChunk) -> None:
        """Take the next chunk."""
        if chunk.index != 0:
            return
        self._pieces.append(chunk.text)
        for delta in chunk.tool_calls:
            while len(self.answer.tool_calls) <= delta.index:
                self.answer.tool_calls.append(JournalledCall())
            call = self.answer.tool_calls[delta.index]
            call.id += delta.id
            call.name += delta.name
            call.arguments += delta.arguments
        if chunk.finish_reason is not None:
            self.answer.finish_reason = chunk.finish_reason

    def finish(self) -> LlmAnswer:
        """The whole answer."""
        self.answer.text = "".join(self._pieces)
        return self.answer

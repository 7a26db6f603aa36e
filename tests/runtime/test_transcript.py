from steelyard.pools.backend import LlmChunk, ToolCallDelta
from steelyard.runtime.transcript import JournalledCall, LlmAnswer, Transcript


def test_an_answer_is_put_together_from_its_pieces() -> None:
    transcript = Transcript()
    transcript.add(LlmChunk(response_headers={"a": "b"}))
    transcript.add(LlmChunk(text="one "))
    transcript.add(LlmChunk(index=1, text="of the second answer"))
    transcript.add(LlmChunk(text="two", finish_reason="stop"))
    assert transcript.finish() == LlmAnswer(text="one two", finish_reason="stop")


def test_tool_calls_are_put_together_by_their_index() -> None:
    transcript = Transcript()
    deltas = (
        ToolCallDelta(index=0, id="c0", name="find", arguments='{"a":'),
        ToolCallDelta(index=1, id="c1", name="read", arguments="{}"),
        ToolCallDelta(index=0, arguments="1}"),
    )
    for delta in deltas:
        transcript.add(LlmChunk(tool_calls=(delta,)))
    answer = transcript.finish()
    assert answer.tool_calls == [
        JournalledCall(id="c0", name="find", arguments='{"a":1}'),
        JournalledCall(id="c1", name="read", arguments="{}"),
    ]
    assert LlmAnswer().tool_calls == []

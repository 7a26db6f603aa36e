from typing import Any

import pytest

from steelyard.errors import PoolRejectedError
from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.tooling import parse_answer, plan_tools


def function(name: str, **more: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def request(**fields: Any) -> LlmRequest:
    return LlmRequest(kind="chat", model="m", **fields)


def names(schema: dict[str, Any]) -> list[str]:
    options = schema.get("anyOf", [schema])
    return [o["properties"].get("name", {"const": "(reply)"})["const"] for o in options]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ["a", "b", "(reply)"]),
        ("auto", ["a", "b", "(reply)"]),
        ("required", ["a", "b"]),
        ({"type": "function", "function": {"name": "b"}}, ["b"]),
    ],
)
def test_offers_what_tool_choice_allows(choice: Any, expected: list[str]) -> None:
    plan = plan_tools(request(tools=[function("a"), function("b")], tool_choice=choice), 10)
    assert plan is not None
    assert names(plan.schema) == expected
    assert "- b: " in plan.instructions


def test_asks_for_no_tools_with_none_or_without_tools() -> None:
    assert plan_tools(request(tools=[function("a")], tool_choice="none"), 10) is None
    assert plan_tools(request(), 10) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\]"),
        ({"tools": [function("a"), function("a")]}, "different names"),
        ({"tools": [function("a")], "tool_choice": {"function": {"name": "z"}}}, "'z'"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [function("a", parameters={"type": "zzz"})]}, "not valid"),
        ({"tools": [function("a")], "json_object": True}, "response_format"),
    ],
)
def test_rejects_wrong_tools(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PoolRejectedError, match=message):
        plan_tools(request(**fields), 10)


def test_reads_calls_replies_and_replies_that_were_cut() -> None:
    call = parse_answer('{"name": "a", "arguments": {"x": 1}}')
    assert call is not None
    assert (call.name, call.arguments) == ("a", '{"x":1}')
    whole, cut = parse_answer('{"reply": "hi \\u00e9"}'), parse_answer('{ "reply": "hi \\u00e')
    assert whole is not None
    assert cut is not None
    assert (whole.reply, cut.reply) == ("hi é", "hi ")
    assert parse_answer('{"name": "a", "argu') is None

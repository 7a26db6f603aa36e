"""Tool calls for a model that was never taught any: a prompt, and a schema that leaves no choice.

The model's answer is constrained to JSON: one call `{"name": ..., "arguments": {...}}`, or with
`tool_choice` auto also `{"reply": ...}`. So every call is well-formed; whether it is a sensible one
is up to the model, and a small one often picks the wrong tool.
One call per answer: `parallel_tool_calls` cannot be had. With `none` the tools are left out.
"""

from typing import Any

import msgspec

from steelyard.errors import PoolRejectedError
from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.schema import checked_schema

MAX_TOOLS = 64
MAX_DESCRIPTION_CHARS = 1024


class ToolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer with tools is asked for.

    Attributes:
        instructions: Text to begin the system message with.
        schema: JSON Schema of the answer.
    """

    instructions: str
    schema: dict[str, Any]


class ToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the model answered: a call, or a reply in words."""

    name: str = ""
    arguments: str = ""
    reply: str = ""


def plan_tools(request: LlmRequest, default_max_string_chars: int) -> ToolPlan | None:
    """How are the request's tools asked for? None when the answer is to be plain text.

    Raises:
        PoolRejectedError: A tool definition or `tool_choice` is wrong.
    """
    names = [_name(tool, position) for position, tool in enumerate(request.tools)]
    if len(set(names)) < len(names) or len(names) > MAX_TOOLS:
        raise PoolRejectedError(f"tools needs 1 to {MAX_TOOLS} entries with different names.")
    choice = _choice(request, names)
    if choice == "none":
        return None
    if request.json_schema is not None or request.json_object:
        raise PoolRejectedError(
            "The embedded engine cannot combine tools with response_format; send one of them."
        )
    chosen = [t["function"] for t in request.tools if choice in {"auto", "required"}] or [
        t["function"] for t in request.tools if t["function"]["name"] == choice
    ]
    options = [_call_schema(function, default_max_string_chars) for function in chosen]
    if choice == "auto":
        options.append(_object_schema({"reply": {"type": "string"}}))
    return ToolPlan(
        instructions=_instructions(chosen, may_reply=choice == "auto"),
        schema=options[0] if len(options) == 1 else {"anyOf": options},
    )


def _name(tool: dict[str, Any], position: int) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if tool.get("type") != "function" or not isinstance(name, str) or not name:
        raise PoolRejectedError(f"tools[{position}] is not a function with a name.")
    return name


def _choice(request: LlmRequest, names: list[str]) -> str:
    choice = request.tool_choice
    if isinstance(choice, dict):
        function = choice.get("function")
        named = function.get("name") if isinstance(function, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if named not in names:
            raise PoolRejectedError(f"tool_choice names {named!r}, which is not among tools.")
        return str(named)  # pyright: ignore[reportUnknownArgumentType]
    if choice is None:
        return "auto" if names else "none"
    if choice not in {"auto", "required", "none"}:
        raise PoolRejectedError(
            f"tool_choice is {choice!r}; allowed: 'auto', 'required', 'none', or a named function."
        )
    if choice == "required" and not names:
        raise PoolRejectedError("tool_choice is 'required', but the request has no tools.")
    return choice if names else "none"


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _call_schema(function: dict[str, Any], default_max_string_chars: int) -> dict[str, Any]:
    parameters: Any = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or "$ref" in str(parameters):  # pyright: ignore[reportUnknownArgumentType]
        raise PoolRejectedError(
            f"The parameters of tool {function['name']!r} must be a JSON schema without $ref."
        )
    arguments = checked_schema(parameters, default_max_string_chars)  # pyright: ignore[reportUnknownArgumentType]
    return _object_schema({"name": {"const": function["name"]}, "arguments": arguments})


def _instructions(functions: list[dict[str, Any]], *, may_reply: bool) -> str:
    lines = ["You can call these tools:"]
    for function in functions:
        description = str(function.get("description") or "")[:MAX_DESCRIPTION_CHARS]
        parameters: dict[str, Any] = function.get("parameters") or {}
        lines.append(
            f"- {function['name']}: {description} "
            f"Parameters: {msgspec.json.encode(parameters.get('properties', {})).decode()}"
        )
    lines.append('Call the right tool with JSON: {"name": TOOL, "arguments": {...}}.')
    if may_reply:
        lines.append('If no tool is needed, answer with JSON: {"reply": TEXT}.')
    return "\n".join(lines)


def parse_answer(text: str) -> ToolAnswer | None:
    """Which call or reply is the model's JSON? None when it was cut off on the way to a call.

    >>> parse_answer('{"name": "add", "arguments": {"a": 1}}').arguments
    '{"a":1}'
    """
    try:
        answer = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return _cut_reply(text)
    if "reply" in answer:
        return ToolAnswer(reply=str(answer["reply"]))
    return ToolAnswer(
        name=str(answer.get("name", "")),
        arguments=msgspec.json.encode(answer.get("arguments", {})).decode(),
    )


def _cut_reply(text: str) -> ToolAnswer | None:
    head, mark, rest = text.partition('"reply"')
    _, quote, words = rest.partition('"')
    if not mark or not quote or head.strip() != "{":
        return None
    # Cut inside an escape at worst: drop up to five characters until it reads.
    for end in range(len(words), max(-1, len(words) - 6), -1):
        try:
            return ToolAnswer(reply=msgspec.json.decode(f'"{words[:end]}"', type=str))
        except msgspec.DecodeError:
            continue
    return None

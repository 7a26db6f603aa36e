"""From /v1/responses to a chat: what the same question is as messages.

Most engines speak chat completions alone, so a request for them is written anew. What a chat cannot
hold is refused by name; nothing that changes the answer is left out in silence. Fields that OpenAI
does not know are handed on untouched.
"""

from typing import Any, cast

import msgspec

from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.responses_wire import ResponsesRequest, check_for_chat

_Json = dict[str, Any]

# Fields that mean something else in a chat, or nothing: each is translated, or kept for the answer.
_OWN_FIELDS = frozenset(
    (
        *("input", "instructions", "tools", "tool_choice", "text", "reasoning", "metadata"),
        *("max_output_tokens", "max_tool_calls", "previous_response_id", "store", "include"),
        *("truncation", "top_logprobs", "stream_options", "background", "conversation", "prompt"),
        *("context_management", "moderation", "image", "parallel_tool_calls"),
    )
)
_TEXT_PARTS = frozenset(["input_text", "output_text", "text", "summary_text", "reasoning_text"])
_ROLES = frozenset(["user", "assistant", "system", "developer"])


def chat_document(asked: ResponsesRequest, document: _Json, items: list[_Json]) -> _Json:
    """Which body asks the same of /v1/chat/completions?

    Args:
        asked: The request.
        document: Its body.
        items: All input items, those of earlier responses first.

    Returns:
        The body.

    Raises:
        RequestError: An item, tool or field has no counterpart in a chat; the message names it.
    """
    check_for_chat(asked, document)
    # Null means "not set" here; in a chat, some servers refuse it.
    body: _Json = {
        name: value
        for name, value in document.items()
        if name not in _OWN_FIELDS and value is not None
    }
    body["messages"] = _messages(asked.instructions, items)
    if asked.tools:
        body["tools"] = [_tool(tool, position) for position, tool in enumerate(asked.tools)]
        # A chat refuses this one where there are no tools.
        if asked.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = asked.parallel_tool_calls
    if asked.tool_choice is not None and (asked.tools or asked.tool_choice != "auto"):
        body["tool_choice"] = _tool_choice(asked.tool_choice)
    if asked.max_output_tokens is not None:
        body["max_completion_tokens"] = asked.max_output_tokens
    if asked.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = asked.top_logprobs or 0
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        body["reasoning_effort"] = asked.reasoning.effort
    _add_text(asked, body)
    return body


def _add_text(asked: ResponsesRequest, body: _Json) -> None:
    if asked.text is None:
        return
    if asked.text.verbosity is not None:
        body["verbosity"] = asked.text.verbosity
    wanted = asked.text.format
    if wanted is None or wanted.type == "text":
        return
    if wanted.type == "json_object":
        body["response_format"] = {"type": "json_object"}
        return
    told = {
        "name": wanted.name or "answer",
        "schema": wanted.schema,
        "strict": wanted.strict,
        "description": wanted.description,
    }
    schema = {name: value for name, value in told.items() if value is not None}
    body["response_format"] = {"type": "json_schema", "json_schema": schema}


def _messages(instructions: str | None, items: list[_Json]) -> list[_Json]:
    messages: list[_Json] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    thoughts = ""
    for position, item in enumerate(items):
        where = f"input[{position}]"
        kind = item.get("type") or "message"
        if kind == "reasoning":
            thoughts += _reasoning(item, where)
            continue
        if kind == "function_call_output":
            messages.append(_tool_result(item, where))
            continue
        if kind == "message":
            message = _message(item, where)
        elif kind == "function_call":
            message = {"role": "assistant", "content": None, "tool_calls": [_call(item, where)]}
        else:
            raise _no_counterpart(where, kind)
        if thoughts and message["role"] == "assistant":
            # Under this name engines with a reasoning parser give thoughts and take them back.
            message["reasoning_content"], thoughts = thoughts, ""
        _append(messages, message)
    return messages


def _append(messages: list[_Json], message: _Json) -> None:
    """The parts of one turn are items of their own here, and one message in a chat."""
    last = messages[-1] if messages else {}
    calls = message.get("tool_calls")
    if calls and last.get("role") == "assistant":
        last["tool_calls"] = [*(last.get("tool_calls") or []), *calls]
        if "reasoning_content" in message:
            last["reasoning_content"] = (
                last.get("reasoning_content", "") + message["reasoning_content"]
            )
        return
    messages.append(message)


def _message(item: _Json, where: str) -> _Json:
    role = item.get("role")
    if role not in _ROLES:
        raise _wrong(f"{where}.role", role, f"allowed: {', '.join(sorted(_ROLES))}")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = [_part(part, f"{where}.content[{n}]") for n, part in _numbered(content, where)]
    if all(part["type"] == "text" for part in parts):
        # One text is what every server takes, also for the assistant's turns.
        return {"role": role, "content": "".join(part["text"] for part in parts)}
    return {"role": role, "content": parts}


def _part(part: _Json, where: str) -> _Json:
    kind = part.get("type")
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": _text(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", where)}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image: _Json = {"url": part["image_url"]}
        if part.get("detail"):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and part.get("file_data"):
        file = {name: part[name] for name in ("filename", "file_data") if part.get(name)}
        return {"type": "file", "file": file}
    raise _no_counterpart(where, kind)


def _reasoning(item: _Json, where: str) -> str:
    """Thoughts that can be read; what only their writer can decrypt is refused."""
    parts = _numbered(item.get("content") or item.get("summary") or [], where)
    text = "".join(_text(part, "text", f"{where}[{number}]") for number, part in parts)
    if not text and item.get("encrypted_content"):
        msg = (
            f"{where} is reasoning in encrypted form, which only the server that wrote it can "
            "read; leave it out, or ask a model of that server"
        )
        raise RequestError(msg, param=where)
    return text


def _call(item: _Json, where: str) -> _Json:
    function = {name: _text(item, name, where) for name in ("name", "arguments")}
    return {"id": _text(item, "call_id", where), "type": "function", "function": function}


def _tool_result(item: _Json, where: str) -> _Json:
    output = item.get("output")
    if not isinstance(output, str):
        parts = [_part(part, f"{where}.output[{n}]") for n, part in _numbered(output, where)]
        if any(part["type"] != "text" for part in parts):
            raise _wrong(f"{where}.output", "media", "a chat takes results of tools as text only")
        output = "".join(part["text"] for part in parts)
    call_id = _text(item, "call_id", where)
    return {"role": "tool", "tool_call_id": call_id, "content": output}


def _tool(tool: _Json, position: int) -> _Json:
    where = f"tools[{position}]"
    if tool.get("type") != "function":
        msg = (
            f"{where}.type = {str(tool.get('type'))[:80]!r} is not supported: such tools run at "
            "their vendor; pools here take function tools"
        )
        raise RequestError(msg, param=f"{where}.type")
    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | _Json) -> str | _Json:
    if isinstance(choice, str):
        return choice
    if choice.get("type") != "function":
        kind = str(choice.get("type"))[:80]
        raise _wrong("tool_choice.type", kind, "name a function, or send none, auto or required")
    return {"type": "function", "function": {"name": choice.get("name")}}


def _numbered(parts: object, where: str) -> list[tuple[int, _Json]]:
    if not isinstance(parts, list):
        raise _wrong(where, parts, "its content must be a text or a list of parts")
    found: list[tuple[int, _Json]] = []
    for number, part in enumerate(cast("list[object]", parts)):
        if not isinstance(part, dict):
            raise _wrong(f"{where}[{number}]", part, "a part must be an object with a type")
        found.append((number, cast("_Json", part)))
    return found


def _text(holder: _Json, name: str, where: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", value, "it must be a text")
    return value


def _no_counterpart(where: str, kind: object) -> RequestError:
    return _wrong(f"{where}.type", kind, "pools that serve this model know no such thing")


def _wrong(where: str, value: object, why: str) -> RequestError:
    shown = msgspec.json.encode(value)[:80].decode("utf-8", "replace")
    return RequestError(f"{where} = {shown} is not supported: {why}", param=where)

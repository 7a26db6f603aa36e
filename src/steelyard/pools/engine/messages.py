"""OpenAI chat messages as the plain role and text pairs that a small model's template takes."""

import contextlib
import re
from typing import Any

import msgspec

from steelyard.errors import PoolRejectedError

# A text that holds the template's own marks could pass for another message.
_CONTROL_MARK = re.compile(r"<\|(?=\w+\|>)")
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))


def plain_messages(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Which role and text pairs say the same as the chat messages?

    Tool calls of the assistant become the JSON that the tool prompt asks for, and results of tools
    become messages of the user: the model's template knows neither.

    Raises:
        PoolRejectedError: No message, an unknown role, or content other than text.

    >>> plain_messages([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
    [{'role': 'user', 'content': 'Hi'}]
    """
    if not messages:
        raise PoolRejectedError("The request has no messages; send at least one.")
    return [_plain(message, position) for position, message in enumerate(messages)]


def _plain(message: dict[str, Any], position: int) -> dict[str, str]:
    role = message.get("role")
    if role not in _ROLES:
        raise PoolRejectedError(
            f"messages[{position}] has the role {role!r}; allowed: {', '.join(sorted(_ROLES))}."
        )
    text = _text(message.get("content"), position)
    if role in {"tool", "function"}:
        return {"role": "user", "content": f"Tool result: {text}"}
    if role == "developer":
        return {"role": "system", "content": text}
    if role == "assistant" and message.get("tool_calls"):
        calls = "\n".join(_call(call, position) for call in message["tool_calls"])
        return {"role": "assistant", "content": f"{text}\n{calls}" if text else calls}
    return {"role": str(role), "content": text}


def _call(call: object, position: int) -> str:
    function = call.get("function") if isinstance(call, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(function, dict) or "name" not in function:
        raise PoolRejectedError(f"messages[{position}].tool_calls has an entry without a name.")
    arguments: Any = function.get("arguments", "{}")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(arguments, str):
        # A model wrote it: what is no JSON is passed on as it is.
        with contextlib.suppress(msgspec.DecodeError):
            arguments = msgspec.json.decode(arguments)
    call_json: dict[str, Any] = {"name": function["name"], "arguments": arguments}
    return msgspec.json.encode(call_json).decode()


def _text(content: object, position: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return _CONTROL_MARK.sub("< |", content)
    parts: list[Any] = content if isinstance(content, list) else [content]  # pyright: ignore[reportUnknownVariableType]
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):  # pyright: ignore[reportUnknownMemberType]
            raise PoolRejectedError(
                f"messages[{position}] has content that is not text; this model reads text only."
            )
        texts.append(part["text"])  # pyright: ignore[reportUnknownArgumentType]
    return _CONTROL_MARK.sub("< |", "".join(texts))

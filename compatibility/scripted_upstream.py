"""An upstream that calls a tool when it can and answers when it has a result; standard library."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "mock"
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 4,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 8},
}


def message_for(body: dict[str, Any]) -> dict[str, Any]:
    """What the model says: a call of the first tool, unless a result is there."""
    last = body["messages"][-1]
    tools = body.get("tools")
    if tools and last["role"] != "tool" and body.get("tool_choice") != "none":
        function = tools[0]["function"]
        parameters = function.get("parameters") or {}
        names = parameters.get("required") or list(parameters.get("properties") or {})
        arguments = json.dumps(dict.fromkeys(names, "Oslo"))
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    held = body.get("response_format") or {}
    if held.get("type") == "json_schema":
        names = held["json_schema"]["schema"].get("properties") or {}
        return {"role": "assistant", "content": json.dumps(dict.fromkeys(names, "rain"))}
    said = last.get("content") if isinstance(last.get("content"), str) else "parts"
    return {"role": "assistant", "content": f"You said: {said}"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send({"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/embeddings"):
            # Handed on byte for byte, so it is as the API describes it.
            asked = body["input"]
            is_one = isinstance(asked, str) or (bool(asked) and isinstance(asked[0], int))
            row = {"object": "embedding", "embedding": [0.5, 0.5]}
            rows = [{**row, "index": n} for n in range(1 if is_one else len(asked))]
            self._send({"object": "list", "data": rows, "model": body["model"], "usage": USAGE})
            return
        if "prompt" in body:
            self._complete(body)
            return
        message = message_for(body)
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        head = {"id": "up-1", "created": 1, "model": MODEL}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": reason}
            told = {"object": "chat.completion", "choices": [choice], "usage": USAGE}
            self._send({**head, **told})
            return
        self._begin_stream()
        for delta in _deltas(message):
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            self._event({**head, "object": "chat.completion.chunk", "choices": [choice]})
        end = {"index": 0, "delta": {}, "finish_reason": reason}
        self._event({**head, "object": "chat.completion.chunk", "choices": [end]})
        self._event({**head, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _complete(self, body: dict[str, Any]) -> None:
        choice = {"index": 0, "text": "and so on", "finish_reason": "stop"}
        told = {"id": "up-2", "object": "text_completion", "choices": [choice], "usage": USAGE}
        if not body.get("stream"):
            self._send(told)
            return
        self._begin_stream()
        self._event(told)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()

    def _event(self, payload: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(payload).encode() + b"\n\n")

    def _send(self, payload: dict[str, Any]) -> None:
        body = json.dumps(payload).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant"}
    for word in (message["content"] or "").split(" ") if message["content"] else ():
        yield {"content": word + " "}
    for call in message.get("tool_calls") or ():
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        first = {"index": 0, "id": call["id"], "type": "function"}
        yield {"tool_calls": [{**first, "function": {"name": name, "arguments": ""}}]}
        yield {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}


@contextmanager
def scripted_upstream() -> Iterator[str]:
    """Serve while the block runs; yields the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A real MCP server for the tests: `python mcp_server.py [PORT]`."""

import os
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def fail(message: str) -> str:
    raise ToolError(message)


@server.tool()
def hang() -> str:
    time.sleep(600)
    return "never"


@server.tool()
def leave() -> str:
    os._exit(3)


@server.tool()
def secret_tool() -> str:
    return "secret"


@server.tool()
def print_much(size_bytes: int) -> str:
    """Write past the protocol, to every pipe there is: the SDK moves standard output away."""
    piece = b"x" * (1 << 20)
    for file in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(file).st_mode) or stat.S_ISSOCK(os.fstat(file).st_mode):
                for _ in range(size_bytes // len(piece)):
                    os.write(file, piece)
        except OSError:
            continue
    return "printed"


@server.tool()
async def told(ctx: Context[Any, Any]) -> dict[str, Any]:
    return dict(ctx.request_context.meta or {})


@server.tool()
def surroundings(path: str, port: int) -> dict[str, Any]:
    try:
        Path(path).read_bytes()
        seen = "read"
    except OSError as error:
        seen = type(error).__name__
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        sent = "connected"
    except OSError as error:
        sent = type(error).__name__
    return {"user_id": os.getuid(), "seen": seen, "sent": sent, "variables": sorted(os.environ)}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")

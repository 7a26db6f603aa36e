"""Tools of an MCP server as tools like any other, named `mcp:POOL/TOOL`.

The server is a program on this machine (stdio, in a sandbox unless that is off) or an address
(streamable HTTP). One session serves all calls of the pool; it is opened again when it broke.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx2
import msgspec
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CallToolResult,
    RequestParamsMeta,
    TextContent,
)
from pydantic import ValidationError

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.framing import MAX_FRAME_BYTES
from steelyard.pools.launch import Launch
from steelyard.pools.mcp_process import process_transport
from steelyard.pools.sandbox.launch import Sandbox

# Keys of `_meta`, by which a server learns for whom it works and until when.
TASK_KEY, DEADLINE_KEY = "steelyard/task_id", "steelyard/deadline"
# By this one it knows that a call is another attempt at the same step.
IDEMPOTENCY_KEY = "steelyard/idempotency_key"
# A server may be silent for as long as a call lasts; the call has a time limit of its own.
_HTTP_TIMEOUT = httpx2.Timeout(30.0, read=None)
_MAX_PAGES = 100
_MAX_MESSAGE_CHARS = 2000


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is.

    Attributes:
        command: Program and arguments of a server on this machine.
        environment: All variables that it gets, where it is not confined; in a sandbox, language
            and time zone of them.
        sandbox: What confines it; None for nothing.
        url: Address of a server that speaks streamable HTTP, instead of `command`.
        headers: HTTP headers of every request to it.
    """

    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    sandbox: Sandbox | None = None
    url: str = ""
    headers: dict[str, str] = {}


class McpToolBackend:
    """A pool that runs the tools of one MCP server.

    CPU time and memory of a call are not known. A server on this machine is counted as one busy
    core while the call lasts, one at an address as none: its CPU is not ours. Either way
    `ToolOutcome.measured` is False.

    Args:
        name: Name of the pool.
        server: Where the server is.
        tools: Names of the tools that may be called; empty for all that it offers.
        slots: Calls at once.
        timeout_s: Longest call; a request may ask for less.
    """

    def __init__(
        self,
        name: str,
        server: McpServer,
        tools: tuple[str, ...] = (),
        slots: int = 1,
        timeout_s: float = 60.0,
    ) -> None:
        self._name, self._server, self._tools = name, server, tools
        self._slots, self._timeout_s = slots, timeout_s
        self._places = asyncio.Semaphore(slots)
        self._opening = asyncio.Lock()
        self._session: _Session | None = None
        self._started = False

    @property
    def slots(self) -> int:
        """How many tools run at once?"""
        return self._slots

    async def start(self) -> None:
        """Open the session.

        Raises:
            ConfigError: The server does not offer a tool that is to be called.
            PoolUnavailableError: The server does not answer.
        """
        self._started = True
        session = await self._open()
        missing = sorted(set(self._tools) - session.tools)
        if missing:
            await self.close()
            raise ConfigError(
                f"pools.{self._name}.tools names {missing[0]}, which the MCP server does not "
                f"offer; it offers {', '.join(sorted(session.tools)) or 'none'}"
            )

    async def close(self) -> None:
        """Close the session; calls in flight fail with PoolUnavailableError."""
        self._started = False
        await self._drop(self._session)

    async def run(self, request: ToolRequest) -> ToolOutcome:
        """Run a tool and wait for its result; cancelling the awaiting task cancels the call.

        Raises:
            PoolRejectedError: The tool is not of this pool, or the server refuses the arguments.
            ToolFailedError: The tool failed, or returned more than can be kept.
            PoolTimeoutError: It took longer than `timeout_s`; a server on this machine is killed,
                since a hanging one would answer nobody else.
            PoolUnavailableError: The server is gone, or the pool is not started.
            PoolProtocolError: The answer does not follow the protocol.
        """
        tool = self._tool(request)
        async with self._places:
            session = await self._open()
            started_s = asyncio.get_running_loop().time()
            result = await self._call(session, tool, request)
            wall_s = asyncio.get_running_loop().time() - started_s
        return ToolOutcome(
            result=_value(request.tool, result),
            cpu_s=wall_s if self._server.command else 0.0,
            wall_s=wall_s,
            max_memory_bytes=0,
            measured=False,
        )

    def _tool(self, request: ToolRequest) -> str:
        prefix, _, tool = request.tool.partition("/")
        if prefix != f"mcp:{self._name}" or not tool:
            raise PoolRejectedError(
                f"pool {self._name} runs no tool {request.tool!r}; name it mcp:{self._name}/TOOL"
            )
        if self._tools and tool not in self._tools:
            raise PoolRejectedError(
                f"tool {tool} is not among pools.{self._name}.tools: {', '.join(self._tools)}"
            )
        return tool

    async def _call(self, session: "_Session", tool: str, request: ToolRequest) -> CallToolResult:
        timeout_s = min(request.timeout_s, self._timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await session.client.call_tool(
                    tool, request.arguments, meta=_meta(request, timeout_s)
                )
        except TimeoutError as error:
            if self._server.command:
                await self._drop(session)
            raise PoolTimeoutError(
                f"Tool {request.tool} ran longer than {timeout_s:g} s and was ended."
            ) from error
        except MCPError as error:
            failure = _failure(request.tool, error)
            if isinstance(failure, PoolUnavailableError):
                await self._drop(session)
            raise failure from error
        except (ValidationError, RuntimeError) as error:
            # The SDK's words for a result that does not follow the tool's own schema.
            raise PoolProtocolError(f"Tool {request.tool} answered wrongly: {error}") from error

    async def _open(self) -> "_Session":
        async with self._opening:
            if not self._started:
                raise PoolUnavailableError(f"Pool {self._name} is not started.")
            if self._session is None:
                self._session = await _Session.open(self._name, self._server, self._timeout_s)
            return self._session

    async def _drop(self, session: "_Session | None") -> None:
        """Close a session, once, and forget it if no other one took its place."""
        if session is not None:
            if self._session is session:
                self._session = None
            await session.close()


class _Session:
    """A session with its server, held open by a task of its own.

    The SDK's cancel scopes must be left by the task that entered them, which a call is not.
    """

    def __init__(
        self, client: Client, tools: frozenset[str], stop: asyncio.Event, keeper: asyncio.Task[None]
    ) -> None:
        self.client, self.tools = client, tools
        self._stop, self._keeper = stop, keeper

    @classmethod
    async def open(cls, name: str, server: McpServer, timeout_s: float) -> "_Session":
        stop = asyncio.Event()
        opened: asyncio.Future[tuple[Client, frozenset[str]]]
        opened = asyncio.get_running_loop().create_future()
        keeper = asyncio.create_task(_keep(server, opened, stop))
        try:
            waited: set[asyncio.Future[Any]] = {keeper, opened}
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not opened.done():
                opened.cancel()
                keeper.cancel()
        if opened.cancelled():
            (failure,) = await asyncio.gather(keeper, return_exceptions=True)
            where = server.url or server.command[0]
            reason = _innermost(failure) if isinstance(failure, Exception) else "no answer in time"
            raise PoolUnavailableError(f"The MCP server {where} of pool {name}: {reason}.")
        client, tools = opened.result()
        return cls(client, tools, stop, keeper)

    async def close(self) -> None:
        self._stop.set()
        await asyncio.gather(self._keeper, return_exceptions=True)


async def _keep(
    server: McpServer,
    opened: "asyncio.Future[tuple[Client, frozenset[str]]]",
    stop: asyncio.Event,
) -> None:
    async with _client(server) as client:
        tools = await _list_tools(client)
        if not opened.done():
            opened.set_result((client, tools))
        await stop.wait()


@asynccontextmanager
async def _client(server: McpServer) -> AsyncGenerator[Client, None]:
    async with AsyncExitStack() as stack:
        if server.url:
            http = httpx2.AsyncClient(headers=server.headers, timeout=_HTTP_TIMEOUT)
            await stack.enter_async_context(http)
            transport: Any = streamable_http_client(server.url, http_client=http)
        else:
            transport = process_transport(_launch(server))
        yield await stack.enter_async_context(Client(transport, cache=None))


def _launch(server: McpServer) -> Launch:
    if server.sandbox is not None:
        return server.sandbox.launch(server.environment, command=server.command)
    return Launch(arguments=server.command, environment=server.environment, confined=False)


async def _list_tools(client: Client) -> frozenset[str]:
    names: set[str] = set()
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        names.update(tool.name for tool in page.tools)
        cursor = page.next_cursor
        if not cursor:
            break
    return frozenset(names)


def _meta(request: ToolRequest, timeout_s: float) -> RequestParamsMeta:
    deadline = datetime.now(UTC) + timedelta(seconds=timeout_s)
    meta = {DEADLINE_KEY: deadline.isoformat()}
    if request.task_id:
        meta[TASK_KEY] = request.task_id
    if request.key:
        meta[IDEMPOTENCY_KEY] = request.key
    # An open map by the protocol, which the type cannot say.
    return cast("RequestParamsMeta", meta)


def _value(tool: str, result: CallToolResult) -> Any:  # noqa: ANN401 - JSON of the server's making
    """What did the tool return? Its structured content, else its text, else all pieces."""
    texts = [piece.text for piece in result.content if isinstance(piece, TextContent)]
    if result.is_error:
        message = "\n".join(texts) or "no message"
        raise ToolFailedError(f"{tool} failed: {message[:_MAX_MESSAGE_CHARS]}")
    value: Any = result.structured_content
    if value is None:
        value = [piece.model_dump(mode="json", by_alias=True) for piece in result.content]
        if len(texts) == len(result.content):
            value = "\n".join(texts)
    size = len(msgspec.json.encode(value))
    if size > MAX_FRAME_BYTES // 2:
        raise ToolFailedError(f"{tool} returned {size} bytes; at most {MAX_FRAME_BYTES // 2}.")
    return value


def _failure(tool: str, error: MCPError) -> PoolError:
    if error.code == CONNECTION_CLOSED:
        return PoolUnavailableError(f"The MCP server of tool {tool} is gone; retry.")
    if error.code in {INVALID_PARAMS, METHOD_NOT_FOUND}:
        return PoolRejectedError(f"The MCP server refused {tool}: {error.message}")
    return ToolFailedError(f"{tool} failed: {error.message[:_MAX_MESSAGE_CHARS]}")


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}".rstrip(". ")

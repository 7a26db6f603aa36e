"""An MCP server as a child process: JSON lines on its standard input and output, bounded.

The SDK's own stdio transport hands on variables of the caller and reads a line of any length into
this process's memory; a server that is confined must do neither.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from steelyard.pools.framing import MAX_FRAME_BYTES
from steelyard.pools.launch import Launch

_Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
_Outgoing = MemoryObjectSendStream[SessionMessage]


@asynccontextmanager
async def process_transport(launch: Launch) -> AsyncGenerator[tuple[_Incoming, _Outgoing], None]:
    """Start a server and speak with it while the block runs; then kill it and all it started.

    What the server writes to standard error is dropped.

    Args:
        launch: How it is started.

    Yields:
        The streams of messages from and to it.
    """
    process = await asyncio.create_subprocess_exec(
        *launch.command(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=launch.environment,
        limit=MAX_FRAME_BYTES,
        start_new_session=True,
    )
    to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, to_server = anyio.create_memory_object_stream[SessionMessage](0)
    copying = [
        asyncio.create_task(_read(process, to_us)),
        asyncio.create_task(_write(process, to_server)),
    ]
    try:
        yield incoming, outgoing
    finally:
        for task in copying:
            task.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # The SDK's cancel scopes would cancel this again and again.
        with anyio.CancelScope(shield=True):
            await _bury(process, launch, copying)
        for stream in (to_us, incoming, outgoing, to_server):
            stream.close()


async def _bury(
    process: asyncio.subprocess.Process, launch: Launch, copying: list[asyncio.Task[None]]
) -> None:
    await asyncio.gather(*copying, return_exceptions=True)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()
    await launch.clean_up()


async def _read(
    process: asyncio.subprocess.Process,
    to_us: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    # Closing tells the session that the server is gone, whatever the reason.
    async with to_us:
        while process.stdout is not None:
            try:
                line = await process.stdout.readline()
            except ValueError:
                # Longer than any message may be.
                return
            if not line:
                return
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError as error:
                await to_us.send(error)
            else:
                await to_us.send(SessionMessage(message))


async def _write(
    process: asyncio.subprocess.Process,
    to_server: MemoryObjectReceiveStream[SessionMessage],
) -> None:
    async with to_server:
        async for message in to_server:
            if process.stdin is None:
                return
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            with contextlib.suppress(ConnectionError):
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()

"""Main program of a Ray pool's driver: `python -m steelyard.pools.ray.driver`.

It takes frames on standard input, and ends with the gateway. Ray ends a driver that has lost the
cluster's head for a minute; the gateway then starts another one.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from steelyard.errors import PoolUnavailableError
from steelyard.pools.child import live_with_parent, take_pipes
from steelyard.pools.framing import frame_of, receive_frame
from steelyard.pools.ray.actors import Cluster
from steelyard.pools.ray.frames import (
    Beat,
    Drop,
    FromDriver,
    Open,
    Opened,
    OpenFailed,
    Scale,
    ToDriver,
)
from steelyard.pools.ray.members import Members

_BEAT_S = 2.0
Connect = Callable[[str], Cluster]


class Driver:
    """Serves one pool over two pipes.

    Args:
        reader: What the gateway says.
        writer: Where answers go.
        connect: Connects to the cluster of an address; it may block.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, connect: Connect
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._connect = connect

    async def run(self) -> None:
        """Serve until the gateway closes the pipe."""
        opened = await self._receive()
        if not isinstance(opened, Open):
            return
        beating = asyncio.create_task(self._beat())
        members = None
        try:
            members = await self._open(opened)
        except PoolUnavailableError as error:
            self._tell(OpenFailed(f"pools.{opened.pool}: {error}", fixable=True))
        if members is not None:
            watching = asyncio.create_task(members.watch())
            serving = asyncio.create_task(self._serve(members))
            # A driver that cannot see its nodes any more ends, and the gateway starts another one.
            await asyncio.wait((watching, serving), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                why = watching.exception()
                sys.stderr.write(
                    f"steelyard: the Ray driver of pool {opened.pool} cannot see its nodes "
                    f"({type(why).__name__}: {why}); another one is started\n"
                )
            watching.cancel()
            serving.cancel()
            await members.close()
        beating.cancel()

    async def _open(self, opened: Open) -> Members:
        # Connecting takes seconds: the beat goes on meanwhile.
        cluster = await asyncio.to_thread(self._connect, opened.address)
        members = Members(opened, cluster, self._tell, self._forward)
        await members.check_room()
        try:
            context_tokens = await members.open()
        except BaseException:
            await members.close()
            raise
        self._tell(Opened(context_tokens))
        return members

    async def _serve(self, members: Members) -> None:
        while (body := await receive_frame(self._reader)) is not None:
            told: ToDriver = msgspec.msgpack.decode(body, type=ToDriver)
            if isinstance(told, Scale):
                members.scale(told.replicas)
            elif isinstance(told, Drop):
                members.drop(told)
            elif not isinstance(told, Open):
                members.ask(told, body)

    async def _receive(self) -> ToDriver | None:
        body = await receive_frame(self._reader)
        return None if body is None else msgspec.msgpack.decode(body, type=ToDriver)

    async def _beat(self) -> None:
        while True:
            self._tell(Beat())
            await asyncio.sleep(_BEAT_S)

    def _tell(self, frame: FromDriver) -> None:
        self._forward(msgspec.msgpack.encode(frame))

    def _forward(self, body: bytes) -> None:
        self._writer.write(frame_of(body))


def _connect(address: str) -> Cluster:
    # Ray takes a second to import; the pool's own modules do without.
    from steelyard.pools.ray.cluster import RayCluster  # noqa: PLC0415

    return RayCluster(address)


async def _main(pipe_in: BinaryIO, pipe_out: BinaryIO, connect: Connect) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe_in)
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, pipe_out)
    with contextlib.suppress(ConnectionError):
        await Driver(reader, writer, connect).run()


def main(connect: Connect = _connect) -> None:
    """Serve one pool on the cluster that `connect` connects to."""
    live_with_parent()
    asyncio.run(_main(*take_pipes(), connect))


if __name__ == "__main__":
    main()

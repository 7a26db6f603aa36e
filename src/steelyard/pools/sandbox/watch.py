"""Watches one call from outside: its answer, its end, its time and, where asked, its memory."""

import os
import selectors
import struct
import sys
import time
from pathlib import Path
from typing import Literal

from steelyard.pools.framing import MAX_FRAME_BYTES

Ending = Literal["ended", "timeout", "memory", "too_long"]

_LENGTH = struct.Struct("<I")
_CHUNK_BYTES = 1 << 20
# How long a call may take to end once it has answered.
_LAST_BREATH_S = 1.0
_MEMORY_PERIOD_S = 0.02


class _Answer:
    """What has come of a frame so far."""

    def __init__(self, pipe: int) -> None:
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._bytes = bytearray()
        self.closed = False

    def read(self) -> None:
        while not self.complete and not self.too_long:
            try:
                piece = os.read(self._pipe, _CHUNK_BYTES)
            except BlockingIOError:
                return
            if not piece:
                self.closed = True
                return
            self._bytes += piece

    @property
    def too_long(self) -> bool:
        return self._announced > MAX_FRAME_BYTES

    @property
    def complete(self) -> bool:
        ready = len(self._bytes) >= _LENGTH.size
        return ready and len(self._bytes) >= self._announced + _LENGTH.size

    @property
    def _announced(self) -> int:
        return _LENGTH.unpack_from(self._bytes)[0] if len(self._bytes) >= _LENGTH.size else 0

    def body(self) -> bytes:
        """The frame's body; empty when it did not come in full."""
        if not self.complete or self.too_long:
            return b""
        return bytes(self._bytes[_LENGTH.size : _LENGTH.size + self._announced])


def watch_call(
    call: int, answer_pipe: int, pool_pipe: int, deadline_s: float, memory_limit_bytes: int
) -> tuple[Ending, bytes]:
    """How did a call end, and what did it answer?

    Args:
        call: Its process id.
        answer_pipe: Where its answer comes from.
        pool_pipe: Closed by the pool when nobody waits any more; then this process ends.
        deadline_s: Monotonic time at which it is over.
        memory_limit_bytes: Memory of all processes together; 0 when it is limited elsewhere.

    Returns:
        The ending and the answer's frame; the frame is empty when there is none.
    """
    answer = _Answer(answer_pipe)
    own_bytes = _private_bytes("self")
    alive = os.pidfd_open(call)
    try:
        with selectors.DefaultSelector() as selector:
            for file in (answer_pipe, alive, pool_pipe):
                selector.register(file, selectors.EVENT_READ)
            ending: Ending | None = None
            ready: set[int] = set()
            while ending is None:
                wait_s = deadline_s - time.monotonic()
                if wait_s <= 0.0:
                    return "timeout", b""
                if memory_limit_bytes:
                    wait_s = min(wait_s, _MEMORY_PERIOD_S)
                ready = {key.fd for key, _ in selector.select(wait_s)}
                if pool_pipe in ready:
                    sys.exit(0)
                if memory_limit_bytes and _others_bytes(own_bytes) > memory_limit_bytes:
                    return "memory", b""
                ending = _look(answer, alive in ready)
                if answer.closed and answer_pipe in ready:
                    selector.unregister(answer_pipe)
            if ending == "ended" and alive not in ready:
                _wait_for_end(alive)
            return ending, answer.body()
    finally:
        os.close(alive)


def _look(answer: _Answer, dead: bool) -> Ending | None:
    answer.read()
    if answer.too_long:
        return "too_long"
    return "ended" if answer.complete or dead else None


def _wait_for_end(alive: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(alive, selectors.EVENT_READ)
        selector.select(_LAST_BREATH_S)


def _others_bytes(own_bytes: int) -> int:
    """Memory of all processes but this one; what they share with it is not counted."""
    total_bytes = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and entry.name != "1":
            total_bytes += max(0, _private_bytes(entry.name) - own_bytes)
    return total_bytes


def _private_bytes(process: str) -> int:
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_bytes().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")

"""Main program of an engine child: `python -m steelyard.pools.engine.worker`.

Reads frames from standard input, writes frames to standard output, and ends when either is closed:
a gateway that dies takes its engines with it.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from steelyard.errors import SteelyardError
from steelyard.pools.child import live_with_parent, take_pipes
from steelyard.pools.engine.adapter import EngineAdapter
from steelyard.pools.engine.embedding_loop import EmbeddingLoop
from steelyard.pools.engine.frames import (
    Beat,
    Cancel,
    Embed,
    FromChild,
    Load,
    LoadFailed,
    Ready,
    Submit,
    ToChild,
    read_to_child,
)
from steelyard.pools.engine.loop import EngineLoop
from steelyard.pools.framing import pack_frame

# What the child does all the time.
Loop = EngineLoop | EmbeddingLoop
BEAT_S = 1.0
_EXIT_BROKEN = 3


def main() -> None:
    """Serve one model until the supervisor closes the pipe."""
    live_with_parent()
    # A service manager tells the whole group to stop (systemd's default): the gateway still answers
    # what is open, with this engine, and ends it by the pipe. Nothing is started that inherits it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe_in, pipe_out = take_pipes()
    load = read_to_child(pipe_in)
    if not isinstance(load, Load):
        return

    def send(frame: FromChild) -> None:
        try:
            pipe_out.write(pack_frame(frame))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def flush() -> None:
        try:
            pipe_out.flush()
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    started_s = time.monotonic()
    _pin(load.settings.core)
    try:
        loop = _load(load, send)
    except (SteelyardError, RuntimeError, OSError) as error:
        send(LoadFailed(str(error) or type(error).__name__))
        flush()
        return
    send(Ready(time.monotonic() - started_s, loop.context_tokens, loop.cache_tokens))
    flush()
    inbox: queue.SimpleQueue[ToChild] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe_in, inbox), daemon=True).start()
    _serve(loop, inbox, send, flush)


def _pin(core: int | None) -> None:
    if core is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {core})


def _load(load: Load, send: Callable[[FromChild], None]) -> Loop:
    if load.settings.task == "embeddings":
        from steelyard.pools.engine.embedding_model import EmbeddingModel  # noqa: PLC0415 - NumPy

        model = EmbeddingModel(Path(load.model_path), load.settings.threads)
        return EmbeddingLoop(model, load.settings.model, send)
    return EngineLoop(_adapter(load), load.settings, send)


def _adapter(load: Load) -> EngineAdapter:
    if load.settings.adapter == "llamacpp":
        from steelyard.pools.engine.llamacpp import LlamaCppAdapter  # noqa: PLC0415 - an extra

        return LlamaCppAdapter(Path(load.model_path), load.settings, load.context_tokens)
    from steelyard.pools.engine.openvino import OpenVinoAdapter  # noqa: PLC0415 - an extra

    return OpenVinoAdapter(Path(load.model_path), load.settings, load.context_tokens)


def _receive(pipe_in: BinaryIO, inbox: queue.SimpleQueue[ToChild]) -> None:
    while True:
        frame = read_to_child(pipe_in)
        if frame is None:
            # Not sys.exit: a step in native code would keep the process alive for as long.
            os._exit(0)
        inbox.put(frame)


def _serve(
    loop: Loop,
    inbox: queue.SimpleQueue[ToChild],
    send: Callable[[FromChild], None],
    flush: Callable[[], None],
) -> None:
    beat_due_s = time.monotonic()
    while not loop.broken:
        _take_frames(loop, inbox)
        loop.step()
        if time.monotonic() >= beat_due_s:
            send(Beat(loop.running, loop.waiting))
            beat_due_s = time.monotonic() + BEAT_S
        # Once a step: each write wakes the gateway, which may have to share the core.
        flush()
    os._exit(_EXIT_BROKEN)


def _take_frames(loop: Loop, inbox: queue.SimpleQueue[ToChild]) -> None:
    idle = not loop.running and not loop.waiting
    try:
        frame = inbox.get(timeout=BEAT_S) if idle else inbox.get_nowait()
        while True:
            _take(loop, frame)
            frame = inbox.get_nowait()
    except queue.Empty:
        return


def _take(loop: Loop, frame: ToChild) -> None:
    if isinstance(frame, Cancel):
        loop.cancel(frame.request_id)
    elif isinstance(loop, EngineLoop):
        if isinstance(frame, Submit):
            loop.submit(frame)
    elif isinstance(frame, Embed):
        loop.submit(frame)


if __name__ == "__main__":
    main()

"""An engine child without an engine, that behaves as the prompt of a request tells it."""

import os
import sys
import threading
from typing import BinaryIO

from steelyard.pools.backend import LlmChunk, LlmUsage
from steelyard.pools.child import take_pipes
from steelyard.pools.engine.frames import (
    Beat,
    Broken,
    Done,
    FromChild,
    Load,
    LoadFailed,
    Piece,
    Ready,
    Started,
    Submit,
    read_to_child,
)
from steelyard.pools.framing import pack_frame


def main() -> None:
    pipe_in, pipe_out = take_pipes()

    lock = threading.Lock()

    def send(frame: FromChild) -> None:
        with lock:
            pipe_out.write(pack_frame(frame))
            pipe_out.flush()

    load = read_to_child(pipe_in)
    if not isinstance(load, Load) or load.model_path == "die":
        sys.exit(1)
    if load.model_path == "bad":
        send(LoadFailed("the file is bad"))
        sys.exit(0)
    send(Ready(0.0))
    idle = threading.Event()

    def beat() -> None:
        while not idle.wait(0.1):
            send(Beat(0, 0))

    threading.Thread(target=beat, daemon=True).start()
    while (frame := read_to_child(pipe_in)) is not None:
        if not isinstance(frame, Submit):
            continue
        misbehave(frame.request.prompt, idle, pipe_out)
        for answer in answers(frame):
            send(answer)


def misbehave(prompt: str, idle: threading.Event, pipe_out: BinaryIO) -> None:
    if prompt == "hang":
        idle.set()
        threading.Event().wait()
    if prompt == "rubbish":
        os.write(pipe_out.fileno(), b"\xff\xff\xff\xffrubbish")


def answers(frame: Submit) -> list[FromChild]:
    text = frame.request.prompt
    if text == "break":
        return [Broken("step() raised twice")]
    if text in {"wait", "rubbish"}:
        return []
    usage = LlmUsage(input_tokens=1, cached_tokens=0, output_tokens=1, cached_tokens_measured=False)
    chunk = LlmChunk(text=text, finish_reason="stop", usage=usage)
    return [Started(frame.request_id), Piece(frame.request_id, chunk), Done(frame.request_id)]


if __name__ == "__main__":
    main()

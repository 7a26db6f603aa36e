"""What a child process does first: keep its pipes from stray prints, and die with its parent."""

import ctypes
import os
import signal
import sys
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Which pipes lead to the parent?

    They move to other descriptors: native libraries and tools print to descriptor 1 as they like,
    and that goes to standard error from now on.

    Returns:
        The pipe to read from and the pipe to write to.
    """
    pipe_in = os.fdopen(os.dup(0), "rb")
    pipe_out = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return pipe_in, pipe_out


def live_with_parent() -> None:
    """End when the parent ends, even inside native code, and not earlier.

    Ctrl-C in a terminal goes to the whole group; the parent decides when a child ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

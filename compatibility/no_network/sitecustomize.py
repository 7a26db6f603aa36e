"""Python imports this at its start, where its folder is on PYTHONPATH: only loopback is reached.

What a program tries beyond it is refused and written down, a line each.
"""

import os
import sys
from pathlib import Path
from typing import Any

_TRIED = Path(os.environ["TRIED_HOSTS"])
_HERE = ("127.0.0.1", "::1", "localhost", "", None)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name not in _HERE:
        with _TRIED.open("a", encoding="utf-8") as tried:
            tried.write(f"{name}\n")
        raise ConnectionRefusedError(f"{name} is not this machine")


sys.addaudithook(_watch)

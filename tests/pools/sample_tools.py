"""Tools for the tests, run in worker processes."""

import os
import subprocess
import sys
import time


def add(a: int, b: int) -> int:
    return a + b


def burn(cpu_s: float) -> int:
    count = 0
    end_s = time.process_time() + cpu_s
    while time.process_time() < end_s:
        count += 1
    return count


def sleep(wall_s: float) -> str:
    time.sleep(wall_s)
    return "slept"


def spawn_and_sleep(marker: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(marker, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(child.pid))
    time.sleep(600)


def take(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def fail(message: str) -> None:
    raise ValueError(message)


def leave() -> None:
    sys.exit(7)


def die() -> None:
    os._exit(9)


def shout(text: str) -> str:
    os.write(1, text.encode())
    print(text)  # noqa: T201
    return text


def not_json() -> object:
    return object()


async def answer_later() -> int:
    return 42


def pid() -> int:
    return os.getpid()

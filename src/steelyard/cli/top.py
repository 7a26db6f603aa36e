"""`steelyard top`: a running gateway in the terminal, looked at anew every second."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Generator
from urllib.error import HTTPError, URLError

import msgspec
from rich.console import Console

from steelyard.cli.plain_http import get
from steelyard.cli.top_figures import Look, TaskLook, look_at, look_grids, read_metrics
from steelyard.config.environment import secret
from steelyard.errors import ConfigError
from steelyard.report.tables import print_grid

_ASK_S = 5.0
_MOST_KEYS = 1024


class TopRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to watch.

    Attributes:
        url: Address of the gateway; one that ends in /v1 is taken, too.
        api_key_env: Environment variable that holds the key; empty for none.
        every_s: Seconds between two looks.
        once: Print once and end.
        as_json: Print one JSON object.
    """

    url: str
    api_key_env: str = ""
    every_s: float = 1.0
    once: bool = False
    as_json: bool = False


class _Tasks(msgspec.Struct):
    data: tuple[TaskLook, ...] = ()


def run_top(asked: TopRequest) -> None:
    """Look, print, and go on until q is pressed.

    Args:
        asked: What to watch.

    Raises:
        ConfigError: No gateway answers there, or it wants a key. Once it has answered, a gateway
            that is away is waited for.
    """
    console = Console(file=sys.stdout)
    look = _look(asked)
    if asked.as_json:
        print(msgspec.json.encode(look).decode())
    elif asked.once or not console.is_terminal or console.is_dumb_terminal:
        _print(console, look, None)
    else:
        _watch(asked, console, look)


def _watch(asked: TopRequest, console: Console, look: Look) -> None:
    before: Look | None = None
    with console.screen(), _keys_at_once():
        while True:
            console.clear()
            _print(console, look, before)
            console.print(f"{asked.url}, every {asked.every_s:g} s; q ends")
            if _is_quit(asked.every_s):
                return
            try:
                look, before = _look(asked), look
            except ConfigError as error:
                console.print(str(error))
                if _is_quit(asked.every_s):
                    return


def _print(console: Console, look: Look, before: Look | None) -> None:
    for grid in look_grids(look, before):
        print_grid(grid, console)


def _look(asked: TopRequest) -> Look:
    if not asked.url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {asked.url!r} must start with http:// or https://")
    base = asked.url.rstrip("/").removesuffix("/v1")
    key = secret(asked.api_key_env, "--api-key-env") if asked.api_key_env else ""
    try:
        metrics = read_metrics(get(f"{base}/metrics", key, timeout_s=_ASK_S).decode())
        listed = get(f"{base}/api/tasks", key, timeout_s=_ASK_S)
        tasks = msgspec.json.decode(listed, type=_Tasks).data
    except HTTPError as error:
        cure = "name its key with --api-key-env" if error.code in (401, 403) else "check --url"
        raise ConfigError(f"--url {asked.url} answers with status {error.code}; {cure}") from error
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise ConfigError(
            f"no gateway answers at {asked.url} ({reason}); start one with `steelyard up`, or"
            " give its address with --url"
        ) from error
    look = look_at(metrics, tasks, time.time())
    if not look.pools:
        raise ConfigError(f"--url {asked.url} is no gateway of Steelyard; it has no pools to show")
    return look


@contextlib.contextmanager
def _keys_at_once() -> Generator[None]:
    """Keys are read without Enter; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    kept = termios.tcgetattr(sys.stdin.fileno())
    try:
        tty.setcbreak(sys.stdin.fileno())
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, kept)


def _is_quit(wait_s: float) -> bool:
    """Was q pressed within this time? Also when nobody can press anything any more."""
    try:
        ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    except (OSError, ValueError):
        time.sleep(wait_s)
        return False
    if not ready:
        return False
    # Past Python's buffer: what lies in there would not wake the next `select`.
    pressed = os.read(sys.stdin.fileno(), _MOST_KEYS)
    return not pressed or b"q" in pressed.lower()

"""`steelyard reload`, and what a gateway does when it is told to read its configuration anew."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from steelyard.cli import gateway_note
from steelyard.cli.gateway_note import Note
from steelyard.config.settings import Settings, load_settings
from steelyard.errors import ConfigError, SteelyardError
from steelyard.gateway.server import GatewayServer
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.baselines import policy_named
from steelyard.runtime.fleet_changes import LiveFleet

_LOOK_S = 0.05


class Reloader:
    """Reads the configuration anew whenever it is asked to, one time after the other.

    Args:
        config: The file.
        settings: What it said at the start.
        front: From `[gateway]` to the gateway's settings.
        parts: The fleet and the gateway that are changed.
    """

    def __init__(
        self,
        config: Path,
        settings: Settings,
        front: Callable[[Settings], GatewaySettings],
        parts: tuple[LiveFleet, GatewayServer],
    ) -> None:
        self._config = config
        self._settings = settings
        self._front = front
        self._fleet, self._server = parts
        self._wanted = asyncio.Event()

    def ask(self) -> None:
        """Somebody wants the configuration to be read anew."""
        self._wanted.set()

    async def run(self, begun: Callable[[], None], told: Callable[[str, str], None]) -> None:
        """Do so until cancelled.

        Args:
            begun: Called each time before the file is read.
            told: Called after each time with what was refused, and what has changed.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            begun()
            try:
                told("", await self._reload())
            except (SteelyardError, OSError) as error:
                # The old configuration serves on, whatever the disk or the network says.
                told(" ".join(str(error).split()), "")

    async def _reload(self) -> str:
        settings = load_settings(self._config)
        _check_fixed(self._config, self._settings, settings)
        policy = policy_named(settings.policy.name)
        take = self._server.prepare(self._front(settings))
        told = await self._fleet.change(settings, policy)
        take()
        self._settings = settings
        return told


def run_reload(config: Path, timeout_s: float, *, as_json: bool) -> None:
    """Tell all gateways of a configuration to read it anew, and wait for their answers.

    Args:
        config: The file.
        timeout_s: For so long.
        as_json: One JSON object per gateway.

    Raises:
        ConfigError: None runs, one refused the file, or one did not answer.
    """
    asked = list(gateway_note.running(config))
    if not asked:
        raise ConfigError(
            f"no gateway runs with {config.resolve()} on this machine; start it with `steelyard up`"
        )
    for note in asked:
        os.kill(note.pid, signal.SIGHUP)
    gives_up_s = time.monotonic() + timeout_s
    answers = [_answer(note, gives_up_s) for note in asked]
    for answer in answers:
        if as_json:
            print(msgspec.json.encode(answer).decode())
        elif not answer.refused:
            print(f"{answer.base_url}: {answer.told}")
    refused = [one for one in answers if one.refused]
    if refused:
        raise ConfigError(f"{refused[0].refused}; the old configuration stays in force")


def _answer(asked: Note, gives_up_s: float) -> Note:
    # One that was under way may have read the file before it was changed.
    reloads = asked.reloads + (2 if asked.reading else 1)
    while time.monotonic() < gives_up_s:
        note = gateway_note.note_of(asked.pid)
        if note is None:
            raise ConfigError(f"the gateway at {asked.base_url} has ended; start it anew")
        if note.reloads >= reloads:
            return note
        time.sleep(_LOOK_S)
    raise ConfigError(
        f"the gateway at {asked.base_url} has not answered; it may still be starting pools: "
        "look at what it says, or give it more time with --timeout"
    )


def _check_fixed(config: Path, old: Settings, new: Settings) -> None:
    """Refuse what only a restart can change."""
    for what, before, after in (
        ("store", old.store, new.store),
        ("gateway.host", old.gateway.host, new.gateway.host),
        ("gateway.port", old.gateway.port, new.gateway.port),
        ("dashboard", old.dashboard, new.dashboard),
    ):
        if before != after:
            raise ConfigError(
                f"configuration {config}: {what} cannot change while the gateway runs; restart it"
            )

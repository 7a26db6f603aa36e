"""Which sandbox is chosen, what it shows, and what is said when there is none."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.errors import ConfigError, SandboxUnavailableError
from steelyard.pools.sandbox import launch
from steelyard.pools.sandbox.confinement import SETUP_FAILED_STATUS, SandboxLimits
from steelyard.pools.sandbox.launch import Sandbox, find_sandbox, readable_paths
from steelyard.pools.tools import ProcessToolPool


async def test_fails_closed_and_says_what_is_missing_and_what_turns_it_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(shutil, "which", nothing)
    with pytest.raises(SandboxUnavailableError, match='bwrap is not installed.*sandbox = "off"'):
        await find_sandbox("bubblewrap", SandboxLimits())


async def test_a_kernel_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the right to become somebody else, a superuser's worker would stay a superuser.
    def nobody() -> int:
        return 2**32 - 2

    monkeypatch.setattr(launch, "_next_user_id", nobody)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(SandboxUnavailableError, match="bubblewrap: .*; landlock: .*; install"):
        await find_sandbox("auto", SandboxLimits())


def test_shows_python_and_this_package_but_no_folder_twice() -> None:
    paths = readable_paths(("/usr/lib",))
    assert any(Path(sys.prefix).is_relative_to(path) for path in paths)
    assert any(Path(launch.__file__).is_relative_to(path) for path in paths)
    for path in paths:
        assert not any(path != other and Path(path).is_relative_to(other) for other in paths)
    assert not any(Path(path) in (Path("/"), Path.home()) for path in paths)


@pytest.mark.parametrize("path", ["/", "/etc", "/home", "~", "/var"])
def test_refuses_to_show_a_home_or_the_whole_system(path: str) -> None:
    with pytest.raises(ConfigError, match="folder of their own"):
        readable_paths((str(Path(path).expanduser()),))


async def test_a_worker_that_is_not_confined_does_not_start() -> None:
    """The first process inside checks for itself what bubblewrap was to arrange."""
    started = Sandbox(mode="bubblewrap").launch({})
    alone = started.arguments[started.arguments.index("--") + 1 :]
    process = await asyncio.create_subprocess_exec(
        *alone, env=started.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, messages = await process.communicate()
    await started.clean_up()
    assert process.returncode == SETUP_FAILED_STATUS
    # A superuser's worker has become somebody else by then, who may read less.
    assert b"not process 1" in messages or b"Permission denied" in messages


async def test_without_a_sandbox_a_tool_has_all_rights_of_this_user() -> None:
    pool = ProcessToolPool(1, environment=dict(os.environ))
    await pool.start()
    try:
        assert pool.confinement == ""
    finally:
        await pool.close()

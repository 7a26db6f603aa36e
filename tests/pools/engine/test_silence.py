"""Silence, of real processes: one that hangs, and one that is kept from running."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.engine.silence import Silence, starved_s, waited_s

_WAITS = st.dictionaries(st.integers(1, 9), st.floats(0, 1e6), max_size=5)


@given(_WAITS, st.floats(0, 100))
def test_who_waits_longer_starves_for_as_long(before_s: dict[int, float], more_s: float) -> None:
    after_s = {thread: waited + more_s for thread, waited in before_s.items()}
    expected_s = more_s if before_s else 0.0
    assert starved_s(before_s, after_s) == pytest.approx(expected_s, abs=1e-6)
    assert starved_s(before_s, {}) == 0.0


def test_reads_what_the_kernel_writes_and_no_more(tmp_path: Path) -> None:
    for thread, text in (("7", "10 2500000000 3\n"), ("8", ""), ("9", "1 x 1")):
        (tmp_path / "5" / "task" / thread).mkdir(parents=True)
        (tmp_path / "5" / "task" / thread / "schedstat").write_text(text)
    assert waited_s(5, tmp_path) == {7: 2.5}
    assert waited_s(6, tmp_path) == {}


def test_a_process_that_ends_while_it_is_looked_at_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "5" / "task"
    (folder / "7").mkdir(parents=True)

    def gone(path: Path) -> None:
        raise ProcessLookupError(path)

    # Of such a folder the kernel says that it is there, and then that it cannot be read.
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, gone)
    assert waited_s(5, tmp_path) == {}


@contextmanager
def child(code: str) -> Generator[int]:
    with subprocess.Popen([sys.executable, "-c", code]) as process:  # noqa: S603
        try:
            yield process.pid
        finally:
            process.kill()


async def test_a_child_that_sleeps_has_been_silent() -> None:
    with child("import time; time.sleep(60)") as pid:
        async with asyncio.timeout(20):
            await Silence(pid, 0.2, 0.05).lasts()


async def test_a_child_that_speaks_has_not() -> None:
    with child("import time; time.sleep(60)") as pid:
        silence = Silence(pid, 0.4, 0.1)
        lasts = asyncio.create_task(silence.lasts())
        for _ in range(20):
            silence.heard()
            await asyncio.wait([lasts], timeout=0.05)
        assert not lasts.done()
        async with asyncio.timeout(20):
            await lasts


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no schedstat here")
def test_the_kernel_tells_of_two_that_want_one_processor() -> None:
    core = min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    with child(spin) as one, child(spin):
        before_s = waited_s(one)
        waits_s = 0.0
        for _ in range(600):
            waits_s = starved_s(before_s, waited_s(one))
            if waits_s > 0.2:
                break
            time.sleep(0.05)
        assert waits_s > 0.2


async def test_time_without_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def starving(pid: int) -> dict[int, float]:
        nonlocal looks
        looks += 1
        return {pid: min(looks, 10) * 1.0}

    monkeypatch.setattr("steelyard.pools.engine.silence.waited_s", starving)
    async with asyncio.timeout(20):
        await Silence(os.getpid(), 0.02, 0.01).lasts()
    assert looks >= 11

"""A PostgreSQL primary with a streaming standby, on two ports, and its failover."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from tests.store.postgres_server import as_user, binaries

STANDBY = "standby"


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class PostgresPair:
    """A primary, and a standby that follows it.

    Args:
        folder: Where their data are.
        is_synchronous: Whether a commit waits until the standby has it on disk.
    """

    def __init__(self, folder: Path, *, is_synchronous: bool) -> None:
        self._folder = folder
        self._is_synchronous = is_synchronous
        self._ports = (free_port(), free_port())
        self._processes: list[subprocess.Popen[bytes]] = []
        self._databases = 0

    def make(self) -> None:
        """Start both; the standby has everything that the primary has."""
        data = self._data(0)
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        self._start(0)
        base = ["pg_basebackup", "-h", "127.0.0.1", "-p", str(self._ports[0]), "-U", "postgres"]
        self._run(*base, "-D", self._data(1), "-R", "-X", "stream", "-c", "fast")
        self._start(1, "-c", f"cluster_name={STANDBY}")
        if self._is_synchronous:
            # After the copy: alone, the promoted standby must not wait for another one.
            self._ask(0, f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
            self._ask(0, "SELECT pg_reload_conf()")
        wanted = "sync" if self._is_synchronous else "async"
        gives_up_s = time.monotonic() + 30.0
        while self._ask(0, "SELECT sync_state FROM pg_stat_replication") != [(wanted,)]:
            if time.monotonic() > gives_up_s:
                raise RuntimeError("the standby does not follow")
            time.sleep(0.05)

    def new_database(self) -> str:
        """Make an empty database; its URL has both servers, and means the one that takes writes."""
        self._databases += 1
        self._ask(0, f"CREATE DATABASE d{self._databases}")
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"postgresql://postgres@{hosts}/d{self._databases}?target_session_attrs=read-write"

    def hold_back(self) -> None:
        """Let nothing that is committed from now on reach the standby."""
        for (pid,) in self._ask(0, "SELECT pid FROM pg_stat_replication"):
            os.kill(int(str(pid)), signal.SIGSTOP)

    def kill_primary(self) -> None:
        """As when its machine loses power: all its processes at once."""
        primary = self._processes[0]
        os.killpg(primary.pid, signal.SIGKILL)
        primary.wait(30.0)

    def promote(self) -> None:
        """Make the standby the primary."""
        self._ask(1, "SELECT pg_promote(true, 60)")

    def stop(self) -> None:
        """End both at once."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30.0)

    def _data(self, number: int) -> str:
        return str(self._folder / f"data{number}")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*as_user(), str(binaries() / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)  # noqa: S603

    def _start(self, number: int, *more: str) -> None:
        port = str(self._ports[number])
        command = [*as_user(), str(binaries() / "postgres"), "-D", self._data(number), "-p", port]
        command += ["-h", "127.0.0.1", "-k", "", *more]
        log = (self._folder / f"log{number}").open("wb")
        with log:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        self._processes.append(process)
        ready = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", port]
        gives_up_s = time.monotonic() + 60.0
        while subprocess.run(ready, check=False).returncode != 0:  # noqa: S603
            if time.monotonic() > gives_up_s or process.poll() is not None:
                raise RuntimeError(f"PostgreSQL {number} does not start")
            time.sleep(0.05)

    def _ask(self, number: int, sql: str) -> list[tuple[object, ...]]:
        url = f"postgresql://postgres@127.0.0.1:{self._ports[number]}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description is not None else []


@contextmanager
def postgres_pair(*, is_synchronous: bool) -> Generator[PostgresPair, None, None]:
    """A primary and its standby that run while the block does; commits wait for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="steelyard-pair-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    pair = PostgresPair(folder, is_synchronous=is_synchronous)
    try:
        pair.make()
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(folder, ignore_errors=True)

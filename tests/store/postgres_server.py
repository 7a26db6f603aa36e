"""A PostgreSQL of the tests' own, from Debian's package, on a socket in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
MISSING = "" if _FOLDERS else "no /usr/lib/postgresql/*/bin: apt-get install postgresql"


def as_user() -> list[str]:
    """PostgreSQL refuses to run as root: its package brings a user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    return [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def binaries() -> Path:
    """Folder of the newest version's programs."""
    return _FOLDERS[-1]


class PostgresServer:
    """A server that can be stopped and started again.

    Args:
        folder: Where its data and its socket are.
        fsync: Whether commits wait for the disk.
    """

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self._folder = folder
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def make(self) -> None:
        data = str(self._folder / "data")
        command = [*as_user(), str(_FOLDERS[-1] / "initdb"), "-D", data, "-U", "postgres"]
        subprocess.run(  # noqa: S603
            [*command, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd=self._folder,
        )
        rules = self._folder / "data" / "pg_hba.conf"
        trusted = rules.read_text(encoding="utf-8")
        # The first rule that fits counts.
        rules.write_text(f"local all guarded scram-sha-256\n{trusted}", encoding="utf-8")

    def start(self) -> None:
        command = [*as_user(), str(_FOLDERS[-1] / "postgres"), "-D", str(self._folder / "data")]
        settings = ["-k", str(self._folder), "-h", "", *([] if self._fsync else ["-F"])]
        self._process = subprocess.Popen(  # noqa: S603
            [*command, *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )
        ready = [str(_FOLDERS[-1] / "pg_isready"), "-q", "-h", str(self._folder)]
        gives_up_s = time.monotonic() + 30.0
        while subprocess.run(ready, check=False).returncode != 0:  # noqa: S603
            assert time.monotonic() < gives_up_s
            assert self._process.poll() is None
            time.sleep(0.02)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        self._databases += 1
        name = f"d{self._databases}"
        command = [str(_FOLDERS[-1] / "createdb"), "-h", str(self._folder), "-U", "postgres", name]
        subprocess.run(command, check=True)  # noqa: S603
        return self.url.replace("@/postgres?", f"@/{name}?")

    def new_database_of(self, user: str, password: str) -> str:
        """Make a database and a user who needs a password; the URL is without it."""
        url = self.new_database()
        psql = [str(_FOLDERS[-1] / "psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", url]
        role = (
            f"DROP ROLE IF EXISTS {user}; CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'"
        )
        subprocess.run([*psql, "-c", role], check=True, capture_output=True)  # noqa: S603
        return url.replace("//postgres@", f"//{user}@")

    def cpu_s(self) -> float:
        """CPU seconds of the server and its processes, those that have ended included."""
        assert self._process is not None
        own = self._process.pid
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(folder.name) == own:
                ticks += sum(int(field) for field in fields[11:15])
            elif int(fields[1]) == own:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """At once, as a power failure would."""
        process, self._process = self._process, None
        if process is not None:
            # SIGQUIT is PostgreSQL's immediate shutdown.
            process.send_signal(3)
            process.wait(30)


@contextmanager
def postgres_server(*, fsync: bool = False) -> Generator[PostgresServer, None, None]:
    """A server that runs while the block does."""
    folder = Path(tempfile.mkdtemp(prefix="steelyard-pg-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = PostgresServer(folder, fsync=fsync)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)

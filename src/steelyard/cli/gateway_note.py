"""Which gateways run on this machine? Each keeps a note, and holds a lock on it while it lives."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import msgspec

from steelyard.config.environment import state_folder


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway notes.

    Attributes:
        pid: Its process.
        config: Its configuration file, in full.
        base_url: Where it serves.
        reloads: How often it has read its configuration anew, refused ones included.
        reading: Whether it is doing so now; what is asked meanwhile comes after that.
        refused: Why the last of them was refused; empty when it was taken.
        told: What the last of them changed.
    """

    pid: int
    config: str
    base_url: str
    reloads: int = 0
    reading: bool = False
    refused: str = ""
    told: str = ""


class NoteFile:
    """The note of this process, there while the block runs.

    Args:
        note: Its first state.
    """

    def __init__(self, note: Note) -> None:
        self.note = note
        folder = _folder()
        self._path = folder / f"{note.pid}.json"
        self._lock_path = folder / f"{note.pid}.lock"
        self._lock: TextIO | None = None

    def write(self, note: Note) -> None:
        """Replace the note; a reader sees the old one or the new one."""
        self.note = note
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(note))
        fresh.replace(self._path)

    def __enter__(self) -> Self:
        """Take the lock and write the note; raises OSError where that cannot be."""
        _folder().mkdir(parents=True, exist_ok=True)
        self._lock = self._lock_path.open("w", encoding="utf-8")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.write(self.note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the note away."""
        self._path.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()


def this_process(config: Path, base_url: str) -> Note:
    """The first note of this process."""
    return Note(pid=os.getpid(), config=str(config.resolve()), base_url=base_url)


def running(config: Path) -> Iterator[Note]:
    """Which gateways run with this configuration?

    Args:
        config: The file.

    Yields:
        Their notes; those of processes that have died are passed over.
    """
    wanted = str(config.resolve())
    for path in sorted(_folder().glob("*.json")):
        note = read_note(path)
        if note is not None and note.config == wanted and _is_alive(path.with_suffix(".lock")):
            yield note


def note_of(pid: int) -> Note | None:
    """What does a gateway note now? None when it has ended."""
    path = _folder() / f"{pid}.json"
    return read_note(path) if _is_alive(path.with_suffix(".lock")) else None


def read_note(path: Path) -> Note | None:
    """A note; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError):
        return None


def _is_alive(lock_path: Path) -> bool:
    """Does the process still hold its lock? A number of a process may be another one's by now."""
    try:
        with lock_path.open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _folder() -> Path:
    return state_folder() / "gateways"

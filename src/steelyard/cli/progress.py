"""What is going on? A progress bar on a terminal, plain lines in a pipe."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Stages:
    """Shows the stages of a long command on standard error, so that standard output stays clean.

    Args:
        total: Number of stages.
    """

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True)
        self._total = total
        self._done = 0
        self._start_s = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("starting", total=float(total))

    def __enter__(self) -> "Stages":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None and self._task is not None:
            if error is None:
                self._bar.update(self._task, completed=float(self._total), description="done")
            self._bar.stop()

    def stage(self, what: str) -> None:
        """The next stage begins; the one before is done.

        Args:
            what: What it does.
        """
        self._show(what, float(self._done))
        self._done += 1
        if self._bar is None:
            passed_s = time.monotonic() - self._start_s
            print(f"[{passed_s:5.1f} s] {what}", file=sys.stderr, flush=True)

    def part(self, what: str, done_frac: float) -> None:
        """The stage is this far; shown on a terminal alone.

        Args:
            what: What it does.
            done_frac: Share of the stage that is done, 0 to 1.
        """
        self._show(what, self._done - 1 + min(1.0, done_frac))

    def _show(self, what: str, completed: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=completed, description=what)

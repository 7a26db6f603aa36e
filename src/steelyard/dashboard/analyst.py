"""A process of its own that folds the log into the ledger, plans and simulates.

All of that is arithmetic in Python: in the gateway's process it would hold up every request. It
reads the log on its own connection, keeps the ledger between questions, and gives way to whoever
else wants the CPU. Started by `analysts`; it ends when its standard input does.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from steelyard.dashboard.books import books_sheet
from steelyard.dashboard.messages import Answer, Line, Progress, Question, Setup
from steelyard.dashboard.sheets import Sheet
from steelyard.errors import SteelyardError
from steelyard.ledger.ledger import Ledger
from steelyard.store.event_store import iter_events
from steelyard.store.reader import StoreAddress, StoreReader

if TYPE_CHECKING:
    from steelyard.dashboard.planning import Planning

_PAGE = 5000
# About 2 GB of records; older events than that are left out, and the page says so.
_MOST_EVENTS = 3_000_000
_NICENESS = 10


class LiveBooks:
    """The ledger of a log that goes on.

    Args:
        reader: Reads the log.

    Attributes:
        after: Number of the last event in it; -1 before the first reading.
        left_out: Events at the log's start that are not in it.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._ledger = Ledger()
        self.after = -1
        self.left_out = 0

    def upto_now(self, tell: "Tell") -> Ledger:
        """The ledger with everything that is in the log by now."""
        last = self._reader.last_number().result()
        if self.after < 0:
            self.after = self.left_out = max(0, last - _MOST_EVENTS)
            for event in self._reader.pools(self.after).result() if self.after else ():
                self._ledger.apply(event)
        start = self.after
        while page := self._reader.events(self.after, _PAGE).result():
            for event in iter_events(body for _, body in page):
                self._ledger.apply(event)
            self.after = page[-1][0]
            if last > start:
                tell.progress("reading the log", min(1.0, (self.after - start) / (last - start)))
        return self._ledger


class Tell:
    """Writes lines to whoever asked.

    Args:
        out: Where.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def progress(self, what: str, done_frac: float) -> None:
        """Say how far it is."""
        self.line(Progress(what=what, done_frac=done_frac))

    def line(self, line: Line) -> None:
        """Write one line."""
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()


class Analyst:
    """Answers one question after another.

    Args:
        setup: What there is to read.
        tell: Takes progress and answers.
    """

    def __init__(self, setup: Setup, tell: Tell) -> None:
        self._setup = setup
        self._tell = tell
        address = StoreAddress(where=setup.where, password=setup.password)
        self._books = LiveBooks(StoreReader(address))
        self._planning: Planning | None = None
        # Number of the log's last event in it, and the sheet.
        self._sheet_of: tuple[int, Sheet] | None = None

    def answer(self, question: Question) -> None:
        """Answer; an error is an answer, too."""
        try:
            sheet = self._sheet(question)
        except SteelyardError as error:
            self._tell.line(Answer(error=str(error)))
        else:
            self._tell.line(Answer(sheet=sheet))

    def _sheet(self, question: Question) -> Sheet:
        if question.kind == "books":
            ledger = self._books.upto_now(self._tell)
            if self._sheet_of is None or self._sheet_of[0] != self._books.after:
                self._sheet_of = (self._books.after, self._with_limit(books_sheet(ledger)))
            return self._sheet_of[1]
        # The solver takes a second to load; who only reads the ledger does without.
        from steelyard.dashboard.planning import Planning  # noqa: PLC0415 - see above

        if self._planning is None:
            plan, settings = self._setup.plan, self._setup.plan_settings
            self._planning = Planning(
                Path(plan) if plan else None, Path(settings) if settings else None
            )
        planning = self._planning
        if question.kind == "in_force":
            return planning.in_force()
        ledger = self._books.upto_now(self._tell)
        if question.kind == "anew":
            return planning.anew(ledger, self._tell.progress)
        return planning.what_if(ledger, question.change, self._tell.progress)

    def _with_limit(self, sheet: Sheet) -> Sheet:
        if not self._books.left_out:
            return sheet
        note = f"The first {self._books.left_out:,} events of the log are left out."
        return msgspec.structs.replace(sheet, notes=(*sheet.notes, note))


def main() -> None:
    """Answer the questions of standard input until it ends."""
    os.nice(_NICENESS)
    # Libraries print to standard output; the line to whoever asked is kept clean of that.
    line = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(line, "wb") as out:
        questions = sys.stdin.buffer
        setup = msgspec.json.decode(questions.readline(), type=Setup)
        analyst = Analyst(setup, Tell(out))
        for asked in questions:
            analyst.answer(msgspec.json.decode(asked, type=Question))


if __name__ == "__main__":
    main()

"""What the dashboard and its analyst process tell each other: one line of JSON each."""

from typing import Literal

import msgspec

from steelyard.dashboard.sheets import Sheet


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What if things were different?

    Attributes:
        scope: Whose price changes: `all`, `provider:NAME` or `hardware:NAME`.
        price_factor: New price over today's.
        load_factor: New rate of tasks over the recorded one.
        deadline_factor: New time to the deadline over today's.
    """

    scope: str = "all"
    price_factor: float = 1.0
    load_factor: float = 1.0
    deadline_factor: float = 1.0


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: what there is to read.

    Attributes:
        where: The store.
        password: Of its database; it travels on no command line.
        plan: The plan in force; empty without one.
        plan_settings: What new plans keep to; empty for the defaults.
    """

    where: str
    password: str = ""
    plan: str = ""
    plan_settings: str = ""

    def __repr__(self) -> str:
        """Everything but the password."""
        return f"Setup(where={self.where!r}, plan={self.plan!r})"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        kind: `books` for the ledger, `in_force` and `anew` for plans, `what_if` for a change.
        change: Of a `what_if`.
    """

    kind: Literal["books", "in_force", "anew", "what_if"]
    change: Change = Change()


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """How far it is.

    Attributes:
        what: What is being done.
        done_frac: Share of the work that is done, roughly.
    """

    what: str
    done_frac: float


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """What came out: a sheet, or one line of why there is none."""

    sheet: Sheet | None = None
    error: str = ""


Line = Progress | Answer

"""Was anything lost or done twice? The event log against clients' and providers' own."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from steelyard.domain.events import AttemptFinished, Event, StepPlaced, TaskFinished, TaskSubmitted
from steelyard.ledger.ledger import TaskRecord

# A fault's tasks have ids of the form FAULT-NUMBER; those after it, FAULT.after-NUMBER.
AFTER = ".after"


class Verdict(NamedTuple):
    """What the three sources say together.

    Attributes:
        steps: Steps that were acknowledged to a client.
        lost: Those without a result in the log.
        doubled: Those with more than one.
        wrong: Those whose client was told another answer than the log has.
        unknown: Answers that no provider has in its log.
        again: Requests that reached a provider, beyond one per step: every one a new attempt.
        unaccounted: Of a step, more requests at the providers than attempts in the log.
        given_up: Steps whose client gave up, so nothing was acknowledged.
    """

    steps: int
    lost: int
    doubled: int
    wrong: int
    unknown: int
    again: int
    unaccounted: int
    given_up: int

    @property
    def is_good(self) -> bool:
        """Is nothing lost, doubled or wrong?"""
        return not any(
            (self.lost, self.doubled, self.wrong, self.unknown, self.unaccounted, self.given_up)
        )


class Books:
    """The event log and the providers' logs, by step.

    Args:
        events: The whole log.
        logs: The providers' own.
    """

    def __init__(self, events: Iterable[Event], logs: Iterable[Path]) -> None:
        self.results: Counter[str] = Counter()
        self.recorded: dict[str, str] = {}
        self.attempts: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.answers: set[str] = set()
        for event in events:
            self._take(event)
        for log in logs:
            for line in log.read_text(encoding="ascii").splitlines():
                told = json.loads(line)
                self.requests[told["key"]] += 1
                self.answers.add(f"{log.stem}-{told['number']}")

    def _take(self, event: Event) -> None:
        if isinstance(event, StepPlaced):
            self.attempts[f"{event.step.task_id}/{event.step.step_id}"] += 1
        elif isinstance(event, AttemptFinished) and event.outcome == "ok":
            key = f"{event.task_id}/{event.step_id}"
            self.results[key] += 1
            self.recorded[key] = json.dumps(event.result)


def verdict(books: Books, answers: dict[str, str], given_up: list[str], fault: str = "") -> Verdict:
    """Judge the steps of one fault, or of all.

    Args:
        books: Both kinds of logs.
        answers: What clients were told, by step.
        given_up: Steps that no client waits for any more.
        fault: Whose tasks; empty for all.

    Returns:
        The verdict.
    """
    mine = {key: text for key, text in answers.items() if _is_of(key, fault)}
    asked = [key for key in books.requests if _is_of(key, fault)]
    return Verdict(
        steps=len(mine),
        lost=sum(books.results[key] == 0 for key in mine),
        doubled=sum(count > 1 for key, count in books.results.items() if _is_of(key, fault)),
        wrong=sum(f"{text} " not in books.recorded.get(key, "") for key, text in mine.items()),
        unknown=sum(text not in books.answers for text in mine.values()),
        again=sum(books.requests[key] - 1 for key in asked),
        unaccounted=sum(max(0, books.requests[key] - books.attempts[key]) for key in asked),
        given_up=sum(_is_of(key, fault) for key in given_up),
    )


def _is_of(key: str, fault: str) -> bool:
    return not fault or key.partition("-")[0].removesuffix(AFTER) == fault


def open_tasks(events: Iterable[Event]) -> set[str]:
    """Which tasks have not ended?"""
    left: set[str] = set()
    for event in events:
        if isinstance(event, TaskSubmitted):
            left.add(event.task_id)
        elif isinstance(event, TaskFinished):
            left.discard(event.task_id)
    return left


def promises(tasks: Iterable[TaskRecord], fault: str) -> tuple[int, int, int, float]:
    """How many tasks of a fault were there, how many late, how many over budget, the longest?"""
    mine = [one for one in tasks if _is_of(one.task_id, fault)]
    late = sum(one.deadline_s is not None and one.finished_s > one.deadline_s for one in mine)
    over = sum(one.budget_usd is not None and one.cost_usd > one.budget_usd for one in mine)
    return len(mine), late, over, max((one.finished_s - one.submitted_s for one in mine), default=0)

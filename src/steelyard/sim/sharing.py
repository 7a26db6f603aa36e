"""Work that goes on at once at one shared pace: decoding streams, tools on shared cores."""

import heapq
import math
from typing import Generic, TypeVar

Member = TypeVar("Member")


class SharedProgress(Generic[Member]):
    """Members that all advance at one rate, re-timed whenever the rate changes.

    Instead of what each member has left, one number is kept: how much work a member would have
    done that was there from the start. A member ends when that number reaches the mark set when
    it joined, so a change of rate costs nothing per member (the virtual time of fair queueing:
    Demers, Keshav, Shenker, SIGCOMM 1989).

    >>> shared = SharedProgress()
    >>> shared.set_rate(0.0, 2.0)
    >>> shared.join(0.0, "ten", 10.0)
    >>> shared.set_rate(3.0, 1.0)
    >>> shared.next_s()
    7.0
    >>> shared.pop_due(7.0)
    ['ten']
    """

    def __init__(self) -> None:
        self._members: list[tuple[float, int, Member]] = []
        self._joined = 0
        self._attained = 0.0
        self._rate = 0.0
        self._at_s = 0.0

    def __len__(self) -> int:
        return len(self._members)

    def next_s(self) -> float:
        """When does the next member end if the rate stays? Infinite when none will."""
        return self._due_s(self._members[0][0]) if self._members else math.inf

    def set_rate(self, now_s: float, rate: float) -> None:
        """Let all members advance at another pace from now on.

        Args:
            now_s: Simulated time.
            rate: Units of work per second for each member.
        """
        if rate != self._rate:
            self._advance(now_s)
            self._rate = rate

    def join(self, now_s: float, member: Member, work: float) -> None:
        """Take a member in.

        Args:
            now_s: Simulated time.
            member: Who it is.
            work: Units of work it has to do.
        """
        if not self._members:
            # Starting afresh keeps the marks small, and so exact.
            self._attained = 0.0
        self._advance(now_s)
        heapq.heappush(self._members, (self._attained + work, self._joined, member))
        self._joined += 1

    def pop_due(self, now_s: float) -> list[Member]:
        """Take out all members that have ended by now, in the order of their ends.

        Args:
            now_s: Simulated time.
        """
        # Asked before advancing, so that an end announced by `next_s` is never missed by rounding.
        due: list[Member] = []
        mark = self._attained
        while self._members and self._due_s(self._members[0][0]) <= now_s:
            mark, _, member = heapq.heappop(self._members)
            due.append(member)
        if due:
            self._advance(now_s)
            self._attained = max(self._attained, mark)
        return due

    def drain(self, now_s: float) -> list[tuple[Member, float]]:
        """Take everybody out, with the work that each has left, in the order of joining.

        Args:
            now_s: Simulated time.
        """
        self._advance(now_s)
        left = [
            (member, max(0.0, mark - self._attained))
            for mark, _, member in sorted(self._members, key=lambda entry: entry[1])
        ]
        self._members.clear()
        return left

    def _due_s(self, mark: float) -> float:
        if mark <= self._attained:
            return self._at_s
        return self._at_s + (mark - self._attained) / self._rate if self._rate > 0.0 else math.inf

    def _advance(self, now_s: float) -> None:
        self._attained += (now_s - self._at_s) * self._rate
        self._at_s = now_s

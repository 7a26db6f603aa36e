"""Where do the contexts of open tasks lie, and what do they take of each replica's memory?"""

from collections.abc import Iterable

from steelyard.domain.events import Usage
from steelyard.domain.task import LlmCall
from steelyard.fleet.accounts import OpenAttempt, TaskAccount
from steelyard.fleet.prefix import PrefixIndex
from steelyard.fleet.prefix_cache import NOTHING_BELIEVED
from steelyard.fleet.replica_books import ReplicaBooks
from steelyard.fleet.roster import Roster


class Contexts:
    """Keeps the books of memory: what runs, and what will come back.

    Args:
        roster: The fleet's pools.
        books: Counts of their replicas.
        prefixes: What replicas are believed to hold.
    """

    def __init__(self, roster: Roster, books: ReplicaBooks, prefixes: PrefixIndex) -> None:
        self._roster, self._books, self._prefixes = roster, books, prefixes

    def fill(self, attempt: OpenAttempt) -> None:
        """A prompt that is being computed takes room, and keeps what it uses.

        Args:
            attempt: The attempt that starts.
        """
        call, place = attempt.step.call, (attempt.pool, attempt.replica)
        # A vendor's streams are spread over machines that nobody sees.
        if isinstance(call, LlmCall) and self._roster.pools[attempt.pool].token_price is None:
            whole_tokens = call.input_tokens + int(attempt.output_tokens)
            attempt.believed = self._prefixes.begin(
                place, call.prefix_hashes, call.prefix_tokens, whole_tokens
            )

    def free(self, attempt: OpenAttempt, usage: Usage, *, ended: bool) -> None:
        """A prompt is not computed any more; the engine may have told what it found of it.

        Args:
            attempt: The attempt that ends.
            usage: What it used.
            ended: Whether it ended well.
        """
        call = attempt.step.call
        if isinstance(call, LlmCall) and attempt.believed is not NOTHING_BELIEVED:
            tells = ended and usage.cached_counting == "measured"
            found_tokens = usage.cached_tokens if tells else None
            place = (attempt.pool, attempt.replica)
            self._prefixes.end(place, call.prefix_hashes, attempt.believed, found_tokens)

    def move(self, account: TaskAccount, attempt: OpenAttempt | None) -> None:
        """A task's context is where its last call went; nowhere after its end.

        Args:
            account: Of the task.
            attempt: Its step that was placed; None at its end.
        """
        call = None if attempt is None else attempt.step.call
        if attempt is not None and not isinstance(call, LlmCall):
            return
        at = self._at(account.context_place)
        live_tokens = self._books.live_tokens
        if at is not None:
            live_tokens[at] = max(0.0, live_tokens[at] - account.context_tokens)
        if attempt is None or not isinstance(call, LlmCall):
            return
        account.context_place = (attempt.pool, attempt.replica)
        account.context_tokens = call.input_tokens
        at = self._at(account.context_place)
        if at is not None:
            live_tokens[at] += call.input_tokens

    def shrink(self, accounts: Iterable[TaskAccount], attempts: Iterable[OpenAttempt]) -> None:
        """Replicas have left: should their pool grow again, others stand in their places.

        Args:
            accounts: Of all open tasks.
            attempts: All open attempts.
        """
        for account in accounts:
            if self._at(account.context_place) is None:
                account.context_place = None
        for attempt in attempts:
            attempt.gone |= attempt.replica >= self._roster.pools[attempt.pool].replicas

    def _at(self, place: tuple[int, int] | None) -> int | None:
        """Where does a replica stand in the arrays? None where the pool has shrunk below it."""
        if place is None or place[1] >= self._roster.pools[place[0]].replicas:
            return None
        return self._books.starts[place[0]] + place[1]

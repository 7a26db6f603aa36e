"""What does the fleet look like to one step? Views of the parts of the fleet state."""

import msgspec
import numpy as np

from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.accounts import OpenAttempt, TaskAccount
from steelyard.fleet.breakers import Breakers
from steelyard.fleet.estimates import StepEstimate
from steelyard.fleet.lessons import Lessons
from steelyard.fleet.prefix import Place, PrefixIndex
from steelyard.fleet.provider_spend import ProviderSpend
from steelyard.fleet.replica_books import ReplicaBooks, window
from steelyard.fleet.roster import NO_MODEL, Roster
from steelyard.fleet.view import NO_HISTORY, FewView, FleetView, LlmArrays, TaskHistory
from steelyard.perf.predict import FloatArray


class Snapshots:
    """Shows the fleet to steps.

    Args:
        pools: Its pools, and counts of their replicas.
        prefixes: What replicas hold in their caches.
        trust: What was learned of pools and steps, and what fails.
        tasks: Accounts of open tasks, and open attempts by task, step and number.
        spend: What is left of providers' caps.
    """

    def __init__(
        self,
        pools: tuple[Roster, ReplicaBooks],
        prefixes: PrefixIndex,
        trust: tuple[Lessons, Breakers],
        tasks: tuple[dict[str, TaskAccount], dict[tuple[str, int, int], OpenAttempt]],
        spend: ProviderSpend,
    ) -> None:
        self._roster, self._books = pools
        self._prefixes = prefixes
        self._lessons, self._breakers = trust
        self._accounts, self._attempts = tasks
        self._spend = spend

    def view(self, step: Step, now_s: float) -> FleetView:
        """What does the fleet look like to this step, now?

        Args:
            step: The step to be placed.
            now_s: Time on the log's clock.

        Returns:
            A snapshot that later events do not change.
        """
        seen = self.glance(step, now_s)
        return msgspec.structs.replace(
            seen,
            bid_usd_per_hour=seen.bid_usd_per_hour.copy(),
            correction=seen.correction.copy(),
            error_frac=seen.error_frac.copy(),
            running=seen.running.copy(),
            waiting=seen.waiting.copy(),
            late=seen.late.copy(),
            service_sum_s=seen.service_sum_s.copy(),
            prefill_share_sum_s=seen.prefill_share_sum_s.copy(),
            up=seen.up.copy(),
            live_tokens=seen.live_tokens.copy(),
        )

    def glance(self, step: Step, now_s: float) -> FleetView:
        """The same without copies, for a policy that answers before the next event.

        Args:
            step: The step to be placed.
            now_s: Time on the log's clock.

        Returns:
            A view that shows the fleet as it is, later events included.
        """
        call = step.call
        model = call.model if isinstance(call, LlmCall) else NO_MODEL
        max_output_tokens = float(call.max_output_tokens) if isinstance(call, LlmCall) else 0.0
        memory_bytes = 0.0 if isinstance(call, LlmCall) else float(call.memory_bytes)
        estimate = self._lessons.known(step) or StepEstimate.unseen()
        account, books = self._accounts.get(step.task_id), self._books
        up = self._breakers.trusted(books.up, books.starts, now_s)
        return FleetView(
            now_s=now_s,
            pools=self._roster.pools,
            arrays=self._roster.curves(model, step.pools),
            rent_usd_per_hour=self._roster.rent_usd_per_hour,
            bid_usd_per_hour=window(self._roster.bid_usd_per_hour),
            correction=window(self._lessons.correction),
            error_frac=window(self._lessons.error_frac),
            closed=self._breakers.closed_array(now_s),
            offsets=books.offsets,
            running=books.running_window,
            waiting=books.waiting_window,
            late=books.late_window,
            service_sum_s=books.service_sum_window_s,
            prefill_share_sum_s=books.prefill_share_window_s,
            up=books.up_window if up is books.up else np.frombuffer(up, dtype=np.bool_),
            cached_tokens=self._cached_tokens(step),
            live_tokens=books.live_tokens_window,
            expected=estimate.expectation(step.step_id, max_output_tokens, memory_bytes),
            committed_usd=0.0 if account is None else account.spent_usd + account.reserved_usd,
            history=NO_HISTORY if account is None else self._history(account),
            failed_at=self._failed_at(account, step) if account and step.attempt else (),
            under_way_at=self._under_way_at(step) if step.attempt else (),
            caps=np.array(self._spend.left(now_s)) if self._spend.capped else None,
        )

    def few(self, step: Step, call: LlmCall, now_s: float) -> FewView:
        """What does a fleet of few pools look like to an LLM step, until the next event?

        Args:
            step: The step to be placed.
            call: What it asks.
            now_s: Time on the log's clock.

        Returns:
            The same as `glance`, in plain numbers.
        """
        estimate = self._lessons.known(step)
        usual = (float(call.max_output_tokens), 0.0, False, 0.0)
        if estimate is not None:
            usual = estimate.usual(step.step_id, usual[0])
        account, books = self._accounts.get(step.task_id), self._books
        arrays = self._roster.arrays.get((call.model, step.pools))
        if arrays is None:
            arrays = self._roster.curves(call.model, step.pools)
        held = None
        if call.prefix_hashes:
            held = self._prefixes.holders(call.prefix_hashes, call.prefix_tokens)
        return FewView(
            now_s,
            arrays.rows if isinstance(arrays, LlmArrays) else (),
            self._roster.rents,
            self._roster.bid_usd_per_hour,
            self._lessons.correction,
            self._lessons.error_frac,
            self._breakers.closed(now_s),
            books.starts,
            books.running,
            books.waiting,
            books.late,
            books.service_sum_s,
            books.prefill_share_sum_s,
            self._breakers.trusted(books.up, books.starts, now_s),
            books.live_tokens,
            self._cached_list(held) if held else None,
            *usual,
            0.0 if account is None else account.spent_usd + account.reserved_usd,
            self._spend.left(now_s),
        )

    def _failed_at(self, account: TaskAccount, step: Step) -> tuple[int, ...]:
        """Where did earlier attempts at a step fail? Places that are still there."""
        starts = self._books.starts
        return tuple(
            starts[pool] + replica
            for pool, replica in account.failed.get(step.step_id, ())
            if replica < self._roster.pools[pool].replicas
        )

    def _under_way_at(self, step: Step) -> tuple[int, ...]:
        """Where do earlier attempts at a step wait or run? Places that are still there."""
        before = [
            self._attempts.get((step.task_id, step.step_id, number))
            for number in range(step.attempt)
        ]
        return tuple(
            self._books.starts[one.pool] + one.replica
            for one in before
            if one is not None and not one.gone
        )

    def _cached_list(self, held: dict[Place, int]) -> list[float]:
        starts = self._books.starts
        cached = [0.0] * starts[-1]
        for (pool, replica), tokens in held.items():
            cached[starts[pool] + replica] = float(tokens)
        return cached

    def _history(self, account: TaskAccount) -> TaskHistory:
        place = account.last_place
        known = place is not None and place[1] < self._roster.pools[place[0]].replicas
        return TaskHistory(
            submitted_s=account.submitted_s,
            attained_s=account.attained_s,
            last_at=self._books.starts[place[0]] + place[1] if place and known else -1,
            last_end_s=account.last_end_s,
        )

    def _cached_tokens(self, step: Step) -> FloatArray:
        cached = np.zeros(len(self._books.running), dtype=np.float64)
        call = step.call
        if isinstance(call, LlmCall) and call.prefix_hashes:
            held = self._prefixes.holders(call.prefix_hashes, call.prefix_tokens)
            for (pool, replica), tokens in held.items():
                cached[self._books.starts[pool] + replica] = tokens
        return cached

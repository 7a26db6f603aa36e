"""One request with a key: whose it is, what it may ask for, what it reserves and what it costs."""

import datetime as dt
import math
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from steelyard.domain.events import AttemptFinished
from steelyard.domain.key import ApiKey, budget_left_usd
from steelyard.domain.task import LlmCall, Step
from steelyard.gateway.errors_http import Headers, LimitError, RequestError
from steelyard.gateway.keys_account import Bucket, KeyAccount
from steelyard.gateway.keys_costs import MostCosts
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.keys_sql import Grant


class Books(Protocol):
    """Where money is reserved; `steelyard.gateway.keys_books.KeyBooks` is one."""

    dispatcher: Dispatcher
    most: MostCosts

    async def reserve(self, account: KeyAccount, usd: float) -> Grant | None:
        """Reserve, or say what there is."""
        ...

    def started(self, step_key: tuple[str, int], use: "KeyUse") -> None:
        """Costs of this step's attempts are this request's from now on."""
        ...

    def ended(self, step_key: tuple[str, int], use: "KeyUse") -> None:
        """The step is over."""
        ...


class KeyUse:
    """One request with a key.

    Args:
        key: The key.
        account: Its books in this process.
        books: Where money is reserved.
    """

    __slots__ = (
        *("_account", "_aside_usd", "_books", "_prompt_tokens", "_reserved_usd", "_spent_usd"),
        *("_step_key", "_tokens", "_tries_usd", "key"),
    )

    def __init__(self, key: ApiKey, account: KeyAccount, books: Books) -> None:
        self.key = key
        self._account = account
        self._books = books
        self._step_key: tuple[str, int] | None = None
        self._reserved_usd = 0.0
        self._spent_usd = 0.0
        self._tries_usd = 0.0
        # Of the reservation, what a second attempt beside the first may cost, until one has ended.
        self._aside_usd = 0.0
        self._tokens = 0
        self._prompt_tokens = 0

    def admit(self) -> None:
        """Count a request against the key's rate.

        Raises:
            LimitError: 429, it came too soon.
        """
        bucket = self._account.requests
        if bucket is not None:
            self._take(bucket, 1.0, "requests")

    def may_use(self, model: str) -> bool:
        """May the key ask for this model?"""
        return not self.key.terms.models or model in self.key.terms.models

    async def reserve(self, step: Step, output_tokens: int | None, body: bytes) -> Step:
        """Set aside what the step may cost at most, before it is placed.

        Args:
            step: The step.
            output_tokens: Most tokens of all answers together; None of a single one that has no
                limit but the model's context.
            body: The request; a prompt has no more tokens than its text has bytes.

        Returns:
            The step, confined to the key's pools.

        Raises:
            LimitError: 429, the rate or the budget is used up.
            RequestError: 403, the task is another agent's.
            StoreError: The store is broken.
        """
        terms, account = self.key.terms, self._account
        if terms.agent and step.agent != terms.agent:
            what = f"a task of agent {step.agent!r}"
            raise not_allowed(self.key, what, terms.agent, "Steelyard-Task")
        if terms.pools:
            step = self._confined(step, terms.pools)
        call = step.call
        tokens = call.input_tokens if isinstance(call, LlmCall) else 0
        if account.tokens is not None:
            self._take(account.tokens, float(tokens), "tokens")
            self._prompt_tokens = tokens
        if terms.has_budget:
            pools = self._books.dispatcher.state.pools
            usd = self._books.most.usd(pools, step, output_tokens, body)
            grant = await self._books.reserve(account, usd)
            if grant is not None:
                raise self._too_dear(usd, grant)
            self._reserved_usd = usd
        self._step_key = step.key
        account.begin()
        self._books.started(step.key, self)
        return step

    def placed(self) -> None:
        """An attempt starts. After one that cost, the reservation must cover the next as well.

        Raises:
            LimitError: There is no money for another attempt.
        """
        more_usd = self._spent_usd - self._tries_usd
        if more_usd <= 0.0 or not self.key.terms.has_budget:
            return
        if not self._account.take(more_usd):
            raise LimitError(
                f"the budget of key {self.key.key_id} has no room for another attempt",
                code="insufficient_quota",
                kind="insufficient_quota",
                headers=[(b"x-should-retry", b"false")],
            )
        self._reserved_usd += more_usd
        self._tries_usd = self._spent_usd

    async def sets_aside(self) -> bool:
        """Set aside for a second attempt beside the first what one may cost at most.

        Returns:
            Whether there is so much; nothing is set aside otherwise.

        Raises:
            StoreError: The store is broken.
        """
        if not self.key.terms.has_budget:
            return True
        # The reservation covers one attempt, and those before that cost something.
        one_usd = self._reserved_usd - self._tries_usd
        if await self._books.reserve(self._account, one_usd) is not None:
            return False
        self._reserved_usd += one_usd
        self._tries_usd += one_usd
        self._aside_usd = one_usd
        return True

    def spent(self, event: AttemptFinished) -> None:
        """An attempt of the step has ended, in whatever way: this is what it cost."""
        self._spent_usd += event.cost_usd
        self._tokens += event.usage.input_tokens + event.usage.output_tokens
        # Of two at once only one is left, or none was made: others may have what that leaves.
        unused_usd, self._aside_usd = max(0.0, self._aside_usd - event.cost_usd), 0.0
        if unused_usd > 0.0:
            self._reserved_usd -= unused_usd
            self._tries_usd -= unused_usd
            self._account.give_back(unused_usd)

    def settle(self) -> None:
        """The request is over, or was refused: what it did not use is free again."""
        if self._account.tokens is not None:
            self._account.tokens.take(float(self._tokens - self._prompt_tokens))
        step_key, self._step_key = self._step_key, None
        if step_key is not None:
            self._books.ended(step_key, self)
            self._account.end(self._reserved_usd, self._spent_usd, self._tokens)

    # ---------------------------------------------------------------- private

    def _confined(self, step: Step, pools: tuple[str, ...]) -> Step:
        """The step, which goes to these pools alone; one of them must have its model."""
        model = step.call.model if isinstance(step.call, LlmCall) else ""
        specs = self._books.dispatcher.state.pools
        if not any(spec.name in pools and model in spec.llm_curves for spec in specs):
            what = f"the pools that serve model {model[:80]!r}"
            raise not_allowed(self.key, what, f"pool {', '.join(pools)}", "model")
        return msgspec.structs.replace(step, pools=pools)

    def _take(self, bucket: Bucket, amount: float, kind: str) -> None:
        wait_s = bucket.wait_s(amount, time.monotonic())
        if wait_s == 0.0:
            bucket.take(amount)
            return
        key_id, terms = self.key.key_id, self.key.terms
        limit = f"{terms.tokens_per_min} tokens per minute"
        if kind == "requests":
            limit = f"{terms.requests_per_s} requests per second"
        if math.isinf(wait_s):
            raise LimitError(
                f"key {key_id} may use {limit}; this request has about {amount:.0f}, more than "
                "fit into one minute; shorten the prompt",
                code="rate_limit_exceeded",
                kind=kind,
                headers=[(b"x-should-retry", b"false")],
            )
        raise LimitError(
            f"key {key_id} may use {limit}; try again in {wait_s:.3f} s",
            code="rate_limit_exceeded",
            kind=kind,
            headers=_retry_after(wait_s),
        )

    def _too_dear(self, usd: float, grant: Grant) -> LimitError:
        """Why is there no money: is it spent, or only set aside by steps that run?"""
        terms, account = self.key.terms, self._account
        asked = f"key {self.key.key_id} has too little budget for a step of up to {usd:.6g} USD"
        left_usd = budget_left_usd(terms, grant.spent_usd)
        if usd <= left_usd:
            return LimitError(
                f"{asked}: {account.reserved_usd + grant.held_by_others_usd:.6g} USD are set aside "
                "by steps that run; try again when they are done",
                code="budget_reserved",
                kind="insufficient_quota",
                headers=_retry_after(1.0),
            )
        cure = "send max_tokens, or ask for a larger budget"
        headers: Headers = [(b"x-should-retry", b"false")]
        ends_s = self._budget_renewed_s(usd, grant)
        if ends_s is not None:
            cure = f"send max_tokens, or wait {ends_s:.0f} s for the next span of its budget"
            headers += _retry_after(ends_s)
        return LimitError(
            f"{asked}: {max(0.0, left_usd):.6g} USD are left; {cure}",
            code="insufficient_quota",
            kind="insufficient_quota",
            headers=headers,
        )

    def _budget_renewed_s(self, usd: float, grant: Grant) -> float | None:
        """After how many seconds does a new day or month allow the step? None for never."""
        terms = self.key.terms
        total, _, month = grant.spent_usd
        now = dt.datetime.now(dt.UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        tomorrow = midnight + dt.timedelta(days=1)
        next_month = (midnight.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
        for moment, spent in ((tomorrow, (total, 0.0, month)), (next_month, (total, 0.0, 0.0))):
            if usd <= budget_left_usd(terms, spent):
                return (moment - now).total_seconds()
        return None


def starts_of(use: KeyUse | None) -> Callable[[], None]:
    """What is to be called whenever an attempt of a request with this key starts."""
    return _nothing if use is None else use.placed


def _nothing() -> None:
    """Without a key nothing is reserved."""


def _retry_after(wait_s: float) -> Headers:
    seconds = str(max(1, math.ceil(wait_s))).encode()
    # OpenAI's clients read the second one first.
    return [
        (b"retry-after", seconds),
        (b"retry-after-ms", str(math.ceil(wait_s * 1000.0)).encode()),
    ]


def not_allowed(key: ApiKey, what: str, allowed: str, param: str) -> RequestError:
    """The refusal of what a key is not for.

    Args:
        key: The key.
        what: What was asked for.
        allowed: What it is for.
        param: The field or header that asks for it.
    """
    return RequestError(
        f"key {key.key_id} is not for {what}; it is for {allowed}",
        status=403,
        param=param,
        code="not_allowed",
    )

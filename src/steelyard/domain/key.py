"""Keys of callers: who may ask for what, how fast and for how much money."""

import msgspec

# What every minted key starts with: scanners for leaked secrets know such a prefix.
KEY_PREFIX = "sk-sy-"


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a key allows.

    Attributes:
        name: What people call it.
        agent: Whose steps its requests are; empty where the caller may name any agent.
        team: Which team it was given to; for people, without effect.
        task_id: The one task that all its requests belong to; empty for any.
        deadline_s: Deadline of that task, seconds since 1970; None without one.
        budget_usd: What all its requests together may cost; None without a limit.
        budget_usd_per_day: What they may cost in one UTC day.
        budget_usd_per_month: What they may cost in one UTC month.
        requests_per_s: Requests per second, over all processes of the store; None without a limit.
        tokens_per_min: Tokens of prompts and answers per minute; None without a limit.
        pools: Pools that may be used; empty for all.
        models: Models that may be asked for; empty for all.
        expires_s: From when on it is no longer valid, seconds since 1970; None for never.
        control: Whether it also opens what is not under /v1: metrics and tasks.
    """

    name: str
    agent: str = ""
    team: str = ""
    task_id: str = ""
    deadline_s: float | None = None
    budget_usd: float | None = None
    budget_usd_per_day: float | None = None
    budget_usd_per_month: float | None = None
    requests_per_s: float | None = None
    tokens_per_min: float | None = None
    pools: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    expires_s: float | None = None
    control: bool = False

    @property
    def has_budget(self) -> bool:
        """Is there any limit of money?"""
        return (
            self.budget_usd is not None
            or self.budget_usd_per_day is not None
            or self.budget_usd_per_month is not None
        )


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as the store knows it: without its secret.

    Attributes:
        key_id: Its public part, by which it is found.
        digest: SHA-256 of the whole key.
        terms: What it allows.
        created_s: When it was made, seconds since 1970.
        revoked_s: When it was revoked; 0 while it is valid.
        old_digest: SHA-256 of the key before its rotation; empty without one.
        old_until_s: Until when that one is valid, too.
        changed: Grows with every change of any key of the store.
    """

    key_id: str
    digest: bytes
    terms: KeyTerms
    created_s: float
    revoked_s: float = 0.0
    old_digest: bytes = b""
    old_until_s: float = 0.0
    changed: int = 0


def budget_left_usd(terms: KeyTerms, spent_usd: tuple[float, float, float]) -> float:
    """What may still be spent, by the tightest of a key's limits?

    `min(limit - spent)` over total, day and month; infinite without a limit.

    Args:
        terms: The key's.
        spent_usd: Spent in total, this day, this month.

    >>> terms = KeyTerms(name="a", budget_usd=10.0, budget_usd_per_day=2.0)
    >>> budget_left_usd(terms, (5.0, 1.5, 5.0))
    0.5
    """
    limits = (terms.budget_usd, terms.budget_usd_per_day, terms.budget_usd_per_month)
    left = [
        limit - spent for limit, spent in zip(limits, spent_usd, strict=True) if limit is not None
    ]
    return min(left, default=float("inf"))


def key_id_of(token: str) -> str | None:
    """Which key does a token claim to be? None where it is none of ours.

    >>> key_id_of("sk-sy-0123456789abcdef-secret-part")
    '0123456789abcdef'
    """
    if not token.startswith(KEY_PREFIX):
        return None
    return token[len(KEY_PREFIX) :].partition("-")[0]

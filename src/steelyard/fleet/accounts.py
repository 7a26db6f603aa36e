"""What a task has spent, what is reserved for it, and how far it is."""

import msgspec

from steelyard.domain.task import Step


class TaskAccount(msgspec.Struct):
    """The books of one task that has not ended.

    Attributes:
        agent: Name of its agent.
        spent_usd: Cost of finished attempts.
        reserved_usd: Predicted cost of attempts placed and not finished.
        children_usd: What children that run may cost, by step; part of `reserved_usd`.
        finished: Name, number and end of finished steps; remaining work is learned from them.
    """

    agent: str
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    children_usd: dict[int, float] = {}
    finished: list[tuple[str, int, float]] = []


class OpenAttempt(msgspec.Struct):
    """An attempt that was placed and has not finished.

    Attributes:
        step: The step.
        pool: Index of the pool in the fleet.
        replica: Index of the replica in the pool.
        service_s: Predicted seconds from start to end.
        reserved_usd: Predicted cost.
        started_s: When it started; None while it waits.
        concurrency: Steps that ran on the replica when it started, itself included.
    """

    step: Step
    pool: int
    replica: int
    service_s: float
    reserved_usd: float
    started_s: float | None = None
    concurrency: int = 1

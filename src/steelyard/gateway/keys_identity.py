"""Whose request is it? What a key says of task, agent and model, beside the headers."""

import msgspec

from steelyard.gateway.headers import TaskHeaders
from steelyard.gateway.keys_use import KeyUse, not_allowed


def keyed_headers(use: KeyUse | None, sent: TaskHeaders, model: str) -> TaskHeaders:
    """Which task and agent is a request, for its key's sake?

    Args:
        use: The key; None without a minted one.
        sent: What the request's own headers say.
        model: What it asks for.

    Returns:
        The headers, with what the key says in them.

    Raises:
        RequestError: 403, the key is not for that model, agent or task.
    """
    if use is None:
        return sent
    key, terms = use.key, use.key.terms
    if not use.may_use(model):
        raise not_allowed(key, f"model {model[:80]!r}", ", ".join(terms.models), "model")
    if terms.agent and sent.agent not in (terms.agent, "unnamed"):
        raise not_allowed(key, f"agent {sent.agent!r}", terms.agent, "Steelyard-Agent")
    # Tracing libraries send their traces unasked: no reason to refuse.
    if terms.task_id and not sent.task_is_hint and sent.task_id not in (terms.task_id, None):
        raise not_allowed(key, f"task {sent.task_id!r}", terms.task_id, "Steelyard-Task")
    if not terms.agent and not terms.task_id:
        return sent
    named = msgspec.structs.replace(
        sent, agent=terms.agent or sent.agent, task_id=terms.task_id or sent.task_id
    )
    if not terms.task_id:
        return named
    return msgspec.structs.replace(
        named,
        deadline_s=_least(terms.deadline_s, sent.deadline_s),
        budget_usd=_least(terms.budget_usd, sent.budget_usd),
    )


def _least(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)

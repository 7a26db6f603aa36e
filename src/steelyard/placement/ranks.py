"""How baselines rank pools, written once: by two keys of what `Traits` tell of them.

Like those of `scoring`, the functions work on floats, for a kernel, and on arrays of shape [pools].
"""

from typing import Generic, NamedTuple

from steelyard.perf.predict import Number, pick
from steelyard.placement.scoring import Column, precedes


class Traits(NamedTuple, Generic[Number]):
    """What baselines rank pools by; a float each, or an array of shape [pools].

    Attributes:
        off_gpu: 1 for pools without GPUs, 0 for pools with.
        off_cpu: 1 for pools on neither Arm nor x86, 0 for pools on them.
        undrawn: 1 for pools without a drawn replica, 0 for pools with one.
        load: Steps on the replica that would take the step; infinite where there is none.
        cap: Steps that run there at once.
        cached_tokens: Prompt tokens that it holds.
        cost_usd: Predicted cost at rent.
        finish_s: Predicted seconds to the end.
        slack_s: Slack after it.
    """

    off_gpu: Number
    off_cpu: Number
    undrawn: Number
    load: Number
    cap: Number
    cached_tokens: Number
    cost_usd: Number
    finish_s: Number
    slack_s: Number


def first_ranked(allowed: Column, first: Column, second: Column, names: Column) -> int:
    """Which allowed pool ranks first by two keys? Its number, or -1 if none is allowed."""
    chosen = -1
    for pool in range(len(allowed)):
        if allowed[pool] and (chosen < 0 or precedes(pool, chosen, first, second, names)):
            chosen = pool
    return chosen


def by_gpu(traits: Traits[Number]) -> tuple[Number, Number]:
    """GPUs before all else; then the least load."""
    return traits.off_gpu, traits.load


def by_cpu(traits: Traits[Number]) -> tuple[Number, Number]:
    """CPUs before all else; then the least load."""
    return traits.off_cpu, traits.load


def by_cost(traits: Traits[Number]) -> tuple[Number, Number]:
    """The lowest predicted cost at rent."""
    return traits.cost_usd, traits.finish_s


def by_draw(traits: Traits[Number]) -> tuple[Number, Number]:
    """The pools of the drawn replicas first, the less loaded one of them."""
    return traits.undrawn, traits.load


def by_first_draw(traits: Traits[Number]) -> tuple[Number, Number]:
    """The pool of the drawn replica."""
    return traits.undrawn, traits.undrawn


def by_normalised_load(traits: Traits[Number]) -> tuple[Number, Number]:
    """The least load per place."""
    return traits.load / traits.cap, traits.finish_s


def by_prefix(traits: Traits[Number]) -> tuple[Number, Number]:
    """The longest cached prefix, then the least load."""
    return -traits.cached_tokens, traits.load


def by_finish(traits: Traits[Number]) -> tuple[Number, Number]:
    """The earliest end."""
    return traits.finish_s, traits.finish_s


def by_home(traits: Traits[Number]) -> tuple[Number, Number]:
    """The replica that is put first; then the least load per place."""
    return traits.undrawn, traits.load / traits.cap


def by_spare_slack(traits: Traits[Number]) -> tuple[Number, Number]:
    """In time before late; then the slowest of those in time, and the fastest of the late."""
    late = traits.slack_s < 0.0
    return pick(late, 1.0, traits.undrawn * 0.0), pick(late, traits.finish_s, -traits.finish_s)

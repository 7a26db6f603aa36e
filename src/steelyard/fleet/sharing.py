"""How much of a replica may each of several processes use? Shares by demand, from what all tell.

Every process tells how many steps it runs on a replica, how many wait, and the share that it
claims. From the same tellings all compute the same fair shares, and nobody claims what another
one has not given back yet: so the sum stays within the replica's cap, but for two processes that
take the same free places in the same moment, which the next exchange mends.
"""

from collections.abc import Mapping

import msgspec

from steelyard.fleet.prefix import RecentPrefix


class ReplicaLoad(msgspec.Struct, frozen=True, array_like=True):
    """What one process does on one replica, or several processes together.

    Attributes:
        running: Steps that run.
        waiting: Steps that wait.
        late: Those of them that were expected to be late when they came.
        service_sum_s: Predicted service time of all of them.
        prefill_share_sum_s: Sum of their `prefill_share_s`.
        share: How many it may run at once: its claim.
        prefixes: Prompts that it had computed there lately.
    """

    running: float = 0.0
    waiting: float = 0.0
    late: float = 0.0
    service_sum_s: float = 0.0
    prefill_share_sum_s: float = 0.0
    share: int = 0
    prefixes: tuple[RecentPrefix, ...] = ()

    @property
    def demand(self) -> int:
        """Steps that run or wait."""
        return round(self.running + self.waiting)

    def plus(self, other: "ReplicaLoad") -> "ReplicaLoad":
        """Both together, but for prefixes."""
        return ReplicaLoad(
            self.running + other.running,
            self.waiting + other.waiting,
            self.late + other.late,
            self.service_sum_s + other.service_sum_s,
            self.prefill_share_sum_s + other.prefill_share_sum_s,
            self.share + other.share,
        )


def fair_shares(cap: int, demands: Mapping[str, int]) -> dict[str, int]:
    """How are a replica's places divided among processes?

    Who has demand gets a place while there are any, the most demanding first. Where all demand
    fits, the rest is divided evenly, for what may come; where it does not, in proportion to demand
    (largest remainders), as one queue for all would. A process that was passed over has more demand
    the next time.

    Args:
        cap: Steps that run at once on the replica.
        demands: Steps that run or wait, by process.

    Returns:
        Places by process; their sum is `cap`, or 0 without processes.

    >>> fair_shares(8, {"a": 3, "b": 1})
    {'a': 5, 'b': 3}
    >>> fair_shares(8, {"a": 30, "b": 10})
    {'a': 6, 'b': 2}
    >>> fair_shares(4, {"a": 400, "b": 1})
    {'a': 3, 'b': 1}
    """
    order = sorted(demands, key=lambda name: (-demands[name], name))
    shares = dict.fromkeys(demands, 0)
    if not order:
        return shares
    total = sum(demands.values())
    if total <= cap:
        for rank, name in enumerate(order):
            shares[name] = demands[name] + _even_part(cap - total, len(order), rank)
        return shares
    first = [name for name in order if demands[name]][:cap]
    for name in first:
        shares[name] = 1
    rest = cap - len(first)
    over = {name: demands[name] - 1 for name in first}
    all_over = max(1, sum(over.values()))
    for name in first:
        shares[name] += rest * over[name] // all_over
    by_remainder = sorted(first, key=lambda name: (-(rest * over[name] % all_over), name))
    for name in by_remainder[: cap - sum(shares.values())]:
        shares[name] += 1
    return shares


def own_share(cap: int, me: str, mine: ReplicaLoad, others: Mapping[str, ReplicaLoad]) -> int:
    """How many steps may this process run on a replica until the next exchange?

    Args:
        cap: Steps that run at once on the replica.
        me: Name of this process.
        mine: What it does there.
        others: What the others told.

    Returns:
        Its fair share, or less while others have more than theirs.

    >>> own_share(8, "a", ReplicaLoad(), {})
    8
    >>> own_share(8, "a", ReplicaLoad(waiting=2.0), {"b": ReplicaLoad(share=8)})
    0
    """
    demands = {name: load.demand for name, load in others.items()}
    fair = fair_shares(cap, {**demands, me: mine.demand})[me]
    taken = sum(max(load.share, round(load.running)) for load in others.values())
    return max(0, min(fair, cap - taken))


def _even_part(places: int, processes: int, rank: int) -> int:
    return places // processes + (rank < places % processes)

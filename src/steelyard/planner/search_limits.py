"""How hard does the search for a fleet look, and why did it end?"""

from typing import Literal

import msgspec

StopReason = Literal["gap", "nodes", "time"]


class SearchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to look.

    Attributes:
        gap_frac: Stop when cost / lower bound - 1 is at most this.
        nodes: Stop after this many nodes of the search tree.
        root_rounds: Rounds of cuts before the first branching.
        gomory_rounds: How many of them may add Gomory cuts.
        node_rounds: Rounds of cuts at every other node.
        small_cells: Problems with at most so many shares are solved as one complete program.
        time_limit_s: Backstop in wall seconds; a plan that it cut short may differ by machine.
    """

    gap_frac: float = 1e-4
    nodes: int = 400
    root_rounds: int = 60
    gomory_rounds: int = 12
    node_rounds: int = 2
    small_cells: int = 2500
    time_limit_s: float = 30.0

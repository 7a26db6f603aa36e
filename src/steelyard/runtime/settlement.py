"""What a finished step used and cost."""

import msgspec

from steelyard.domain.events import Usage


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished step used and cost; it is on disk by the time this is handed out.

    Attributes:
        usage: What it used.
        cost_usd: What the last attempt cost.
        attempt: Which attempt it was, from 0.
    """

    usage: Usage
    cost_usd: float
    attempt: int

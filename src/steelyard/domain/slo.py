"""Service levels: what an answer must keep to count."""

import msgspec


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Limits per LLM step, for planning capacity.

    Attributes:
        ttft_s: Longest time to the first token, at the 95th percentile.
        itl_s: Longest gap between tokens, at the 95th percentile.
    """

    ttft_s: float = 1.0
    itl_s: float = 0.1

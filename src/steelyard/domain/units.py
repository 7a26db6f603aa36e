"""Conversions between the units that names end in (`_s`, `_usd_per_hour`, `_tokens`, ...)."""

SECONDS_PER_HOUR = 3600.0
TOKENS_PER_MILLION = 1_000_000.0
BYTES_PER_MIB = 1024 * 1024
BYTES_PER_GIB = 1024 * 1024 * 1024


def rental_usd(usd_per_hour: float, duration_s: float) -> float:
    """What does holding a machine for a while cost?

    Args:
        usd_per_hour: Price in USD per hour.
        duration_s: Seconds held.

    Returns:
        Cost in USD.

    >>> rental_usd(3.6, 10.0)
    0.01
    """
    return usd_per_hour * duration_s / SECONDS_PER_HOUR

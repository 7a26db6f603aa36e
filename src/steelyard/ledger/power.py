"""What is a replica made of, beyond what placement must know, and what energy does it take?"""

import msgspec


class ReplicaFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica is made of, beyond what placement must know.

    Attributes:
        gpus: Number of its GPUs.
        watts_idle: Estimated power when idle; None without a source.
        watts_max: Estimated power at full load; None without a source.
    """

    gpus: int = 0
    watts_idle: float | None = None
    watts_max: float | None = None

    def energy_kwh(self, rented_h: float, busy_h: float) -> float | None:
        """What energy is taken? None without a source of its power.

        Args:
            rented_h: Replica-hours for which it was rented.
            busy_h: Those in which it had anything to do.

        >>> ReplicaFacts(watts_idle=100.0, watts_max=300.0).energy_kwh(2.0, 1.0)
        0.4
        """
        if self.watts_idle is None or self.watts_max is None:
            return None
        extra_h = min(rented_h, busy_h)
        return (self.watts_idle * rented_h + (self.watts_max - self.watts_idle) * extra_h) / 1000.0

"""What is said of an agent before any of its tasks arrives.

A dataclass, not a struct: `import steelyard` reads this file, and loads no package.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentLimit:
    """How much of one agent may happen at once, over all workers of the store.

    Attributes:
        max_running: Tasks at once; None without a limit.
        starts: Tasks that may start in `per_s` seconds; None without a limit.
        step_starts: Steps in pools that may start in `per_s` seconds, of all its tasks together;
            None without a limit.
        per_s: See `starts` and `step_starts`.
    """

    max_running: int | None = None
    starts: int | None = None
    step_starts: int | None = None
    per_s: float = 1.0

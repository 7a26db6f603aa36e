"""How a worker works, and in which order it takes tasks."""

import msgspec


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker works.

    Attributes:
        name: Start of its name; the rest is drawn, so that no two workers share one.
        slots: Tasks that it runs at once; children of its tasks come on top.
        lease_s: Seconds after which a task whose worker is silent is taken over by another one.
        look_s: Seconds between looks for new tasks, cancellations and signals.
        park_s: A task that only sleeps is parked in the store when it sleeps for more than so many
            seconds; one that waits for a signal, or for a child that nobody runs, always is.
    """

    name: str = "worker"
    slots: int = 100
    lease_s: float = 10.0
    look_s: float = 0.2
    park_s: float = 1.0


class TaskOrder(msgspec.Struct, frozen=True, kw_only=True):
    """In which order, and how often.

    Attributes:
        priority: Higher ones are taken first; of one priority, the oldest.
        key: Chosen by the caller; a second task with the same key is the first one.
    """

    priority: int = 0
    key: str = ""

"""Which tasks are open, on what terms, and how far each one is."""

from collections import OrderedDict

import msgspec

# Tasks that only requests name are closed after a silence; until then the oldest ones are forgotten
# where there are too many.
_MAX_OPEN = 100_000
# Of so many that were closed by their silence it is known how far they were numbered.
_MAX_KNOWN = 10_000


class TaskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a task may take.

    Attributes:
        deadline_after_s: Seconds from arrival to the deadline; None without one.
        budget_usd: Budget; None without one.
    """

    deadline_after_s: float | None = None
    budget_usd: float | None = None

    def deadline_from(self, arrival_s: float, parent_s: float | None = None) -> float | None:
        """The absolute deadline of a task that arrives now.

        Args:
            arrival_s: Now, on the log's clock.
            parent_s: Deadline of the task that it is a part of; None without one.

        Returns:
            The earlier of its own and its parent's; None without either.

        >>> TaskLimits(deadline_after_s=5.0).deadline_from(10.0, 12.0)
        12.0
        """
        own_s = None if self.deadline_after_s is None else arrival_s + self.deadline_after_s
        known = [one for one in (own_s, parent_s) if one is not None]
        return min(known, default=None)


class TaskTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a task was promised.

    Attributes:
        agent: Its agent.
        deadline_s: Absolute deadline on the log's clock; None without one.
        budget_usd: Budget; None without one.
        fence: Number of the lease under which it runs; None outside of durable tasks.
    """

    agent: str
    deadline_s: float | None
    budget_usd: float | None
    fence: int | None = None


class _OpenTask(msgspec.Struct):
    terms: TaskTerms
    next_step_id: int = 0
    parents: dict[int, tuple[int, ...]] = {}
    known: dict[int, tuple[int, ...]] = {}
    frontier: set[int] = set()


class OpenTasks:
    """Step numbers and parents of every open task.

    A step's parents are the finished steps on which no other finished step was built: whatever
    the caller knew when it asked. Nobody has to declare a graph.
    """

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, _OpenTask] = OrderedDict()
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

    def open(self, task_id: str, terms: TaskTerms, next_step_id: int = 0) -> None:
        """A task has arrived; one that goes on has used the numbers below `next_step_id`."""
        next_step_id = max(next_step_id, self._numbers.pop(task_id, 0))
        self._tasks[task_id] = _OpenTask(terms=terms, next_step_id=next_step_id)
        if len(self._tasks) > _MAX_OPEN:
            self._tasks.popitem(last=False)

    def close(self, task_id: str) -> None:
        """A task has ended."""
        self._tasks.pop(task_id, None)

    def put_by(self, task_id: str) -> None:
        """Nothing was heard of a task for long: should it go on, its steps are numbered on."""
        task = self._tasks.pop(task_id, None)
        if task is None:
            return
        self._numbers[task_id] = task.next_step_id
        if len(self._numbers) > _MAX_KNOWN:
            self._numbers.popitem(last=False)

    def terms(self, task_id: str) -> TaskTerms | None:
        """On what terms is the task open? None when it is not."""
        task = self._tasks.get(task_id)
        return None if task is None else task.terms

    def next_step_id(self, task_id: str) -> int:
        """Take the task's next free step number; 0 for a task that is not open."""
        task = self._tasks.get(task_id)
        if task is None:
            return 0
        step_id = task.next_step_id
        task.next_step_id += 1
        task.known[step_id] = tuple(sorted(task.frontier))
        return step_id

    def parents(self, task_id: str, step_id: int) -> tuple[int, ...]:
        """On which finished steps is a step built?

        A step that was numbered here knew those that had finished by then, not by the time its
        request arrived. Of one that the caller numbered, only lower numbers count: a step that
        was asked for later may finish sooner.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return ()
        lower = tuple(sorted(one for one in task.frontier if one < step_id))
        return task.known.get(step_id, lower)

    def step_submitted(self, task_id: str, step_id: int, parents: tuple[int, ...]) -> None:
        """A step was submitted with these parents."""
        task = self._tasks.get(task_id)
        if task is not None:
            task.parents[step_id] = parents

    def step_done(self, task_id: str, step_id: int) -> None:
        """A step has finished well: it covers its parents in the frontier."""
        task = self._tasks.get(task_id)
        if task is not None:
            task.known.pop(step_id, None)
            task.frontier.difference_update(task.parents.pop(step_id, ()))
            task.frontier.add(step_id)

"""A task on its way through the simulation: which steps may begin."""

from steelyard.domain.task import Step
from steelyard.domain.workload import WorkloadTask
from steelyard.errors import WorkloadError


class SimTask:
    """One task whose steps begin when all their parents have ended.

    Attributes:
        task: The task as the workload has it.
        steps: What the policy sees of each step; None for a person's gap.
        slowness: Factor on the service time of each step.
        error_code: Code of the first failure; empty while there is none.
        error: Its message.
        closed: Whether its end is in the log.

    Raises:
        WorkloadError: A step names a parent that does not come before it.
    """

    def __init__(
        self, task: WorkloadTask, steps: tuple[Step | None, ...], slowness: list[float]
    ) -> None:
        self.task = task
        self.steps = steps
        self.slowness = slowness
        self.error_code = ""
        self.error = ""
        self.closed = False
        self._place = {step.step_id: at for at, step in enumerate(task.steps)}
        self._blockers = [len(set(step.parents)) for step in task.steps]
        self._children: list[list[int]] = [[] for _ in task.steps]
        self._open = 0
        self._left = len(task.steps)
        for at, step in enumerate(task.steps):
            for parent in dict.fromkeys(step.parents):
                if self._place.get(parent, at) >= at:
                    raise WorkloadError(
                        f"task {task.task_id}: step {step.step_id} names parent {parent}, which "
                        "does not come before it; order steps by step_id, parents first"
                    )
                self._children[self._place[parent]].append(at)

    @property
    def finished(self) -> bool:
        """Is nothing going on and nothing to come?"""
        return self._open == 0 and (self._left == 0 or bool(self.error_code))

    def begin(self) -> list[int]:
        """Places of the steps that may begin at once."""
        ready = [at for at, blockers in enumerate(self._blockers) if blockers == 0]
        self._open = len(ready)
        return ready

    def end_step(self, at: int) -> list[int]:
        """Note that a step has ended well.

        Args:
            at: Its place.

        Returns:
            Places of the steps that may begin now; none after a failure.
        """
        self._open -= 1
        self._left -= 1
        ready: list[int] = []
        for child in self._children[at]:
            self._blockers[child] -= 1
            if self._blockers[child] == 0 and not self.error_code:
                ready.append(child)
        self._open += len(ready)
        return ready

    def fail_step(self, error_code: str, error: str) -> None:
        """Note that a step has failed for good; what runs beside it still ends.

        Args:
            error_code: Stable code of the error.
            error: Its message.
        """
        self._open -= 1
        if not self.error_code:
            self.error_code, self.error = error_code, error

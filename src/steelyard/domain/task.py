"""Task > Step > Attempt: the work, as it is known before it runs."""

from typing import Literal

import msgspec

OnMiss = Literal["run_late", "refuse"]


class LlmCall(msgspec.Struct, frozen=True, kw_only=True, tag="llm", omit_defaults=True, gc=False):
    """One call of a language model, known by its size; its text stays with the caller.

    Attributes:
        model: Name of the model.
        input_tokens: Length of the prompt; an estimate until the engine has counted.
        max_output_tokens: Upper limit of the answer's length.
        prefix_hashes: One hash per message boundary, over the prompt's start up to there.
        prefix_tokens: Tokens up to each of those boundaries, ascending, same length.
    """

    model: str
    input_tokens: int
    max_output_tokens: int
    prefix_hashes: tuple[int, ...] = ()
    prefix_tokens: tuple[int, ...] = ()


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag="tool"):
    """One call of a tool.

    Attributes:
        tool: Name of the tool.
        memory_bytes: Memory the tool may use.
    """

    tool: str
    memory_bytes: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One step of a task, as the policy sees it.

    Attributes:
        task_id: The task it belongs to.
        step_id: Its number in the task, from 0, in order of submission.
        agent: Name of the agent whose run the task is.
        name: Name of the step within the agent, e.g. `summarise`.
        call: What is to be done.
        parents: Numbers of the steps whose results it uses.
        deadline_s: The task's absolute deadline on the log's clock; None without one.
        budget_usd: The task's whole budget; None without one.
        on_miss: What to do when no pool can meet the deadline.
        attempt: 0 for the first attempt, 1 for the first retry, ...
        path: Its place in the program of a durable task: `3` is the fourth step, `3.1.0` the first
            step of the second branch of a gather in that place. Empty elsewhere.
        fingerprint: Hash of what is asked, by which a replay knows the step; empty elsewhere.
        fence: Number of the lease under which it runs; None outside of durable tasks.
        pools: Pools that it may go to; empty for all.
        priority: -10 to 10; among those that wait, each point counts as 6 s less of slack.
        trace_parent: Span of the caller that asked, as a W3C `traceparent`; empty without one.
    """

    task_id: str
    step_id: int
    agent: str
    name: str
    call: LlmCall | ToolCall
    parents: tuple[int, ...] = ()
    deadline_s: float | None = None
    budget_usd: float | None = None
    on_miss: OnMiss = "run_late"
    attempt: int = 0
    path: str = ""
    fingerprint: str = ""
    fence: int | None = None
    pools: tuple[str, ...] = ()
    priority: int = 0
    trace_parent: str = ""

    @property
    def kind(self) -> Literal["llm", "tool"]:
        """`llm` or `tool`."""
        return "llm" if isinstance(self.call, LlmCall) else "tool"

    @property
    def begins_task(self) -> bool:
        """Is nothing done yet that it builds on?

        Its number does not tell: a caller whose first step was refused numbers on.
        """
        return not self.parents

    @property
    def asks_to_begin(self) -> bool:
        """Does it begin a task that is to be refused rather than to end late?"""
        return self.on_miss == "refuse" and not self.parents

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the step in the log."""
        return (self.task_id, self.step_id)

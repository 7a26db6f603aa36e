"""TaskContext: what a running task may ask for. It is handed over explicitly; nothing is global."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from steelyard.domain.events import JsonValue
from steelyard.domain.task import Step, ToolCall
from steelyard.errors import (
    LeaseLostError,
    SignalTimeoutError,
    SteelyardError,
    StoreError,
)
from steelyard.pools.backend import JsonObject, LlmRequest, ToolRequest
from steelyard.runtime.asking import Asking, LlmClient, Sampling, decode_answer
from steelyard.runtime.children import Children, ChildTasks
from steelyard.runtime.definitions import AgentTask, NamedTool, Tool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.embedding import from_journal
from steelyard.runtime.inbox import Inbox
from steelyard.runtime.open_tasks import TaskLimits, TaskTerms
from steelyard.runtime.recorded_errors import recorded_error
from steelyard.runtime.steps import Slot, TaskSteps
from steelyard.runtime.transcript import LlmAnswer
from steelyard.runtime.waits import Wait

__all__ = ["ChildTasks", "LlmClient", "Sampling", "StepSummary", "TaskContext", "decode_answer"]

P = ParamSpec("P")
R = TypeVar("R")


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A step that went well, as `wrap_up` gets it: its name and its result."""

    name: str
    result: JsonValue


class TaskContext:
    """The steps of one running task.

    Every step is recorded once. When the task goes on in another process after a crash, its
    function runs again from the start, and what is recorded is returned without being done again.
    The code between steps must therefore do the same every time: chance, clocks and files belong
    into steps.

    Args:
        steps: Replays and performs steps.
        terms: Agent, deadline and budget.
        dispatcher: Places and runs tool steps.
        gateway: Asks the gateway, which places LLM steps, and the model of steps that name none.
        children: Runs child tasks; None where there is no task store.
        inbox: Signals that were sent to the task.
    """

    def __init__(
        self,
        steps: TaskSteps,
        terms: TaskTerms,
        dispatcher: Dispatcher,
        gateway: tuple[LlmClient, str],
        children: ChildTasks | None,
        inbox: Inbox,
    ) -> None:
        self.task_id = steps.task_id
        self._steps = steps
        self._terms = terms
        self._dispatcher = dispatcher
        client, self._model = gateway
        self._asking = Asking(self.task_id, terms, dispatcher, client)
        self._children = Children(steps, terms, dispatcher, children)
        self._inbox = inbox

    @property
    def deadline_s(self) -> float | None:
        """The task's absolute deadline on the log's clock; None without one."""
        return self._terms.deadline_s

    def now_s(self) -> float:
        """What time is it on the log's clock? Not recorded: use it inside of steps alone."""
        return self._dispatcher.now_s()

    async def llm(
        self,
        messages: list[JsonObject],
        *,
        step: str,
        max_output_tokens: int,
        model: str | None = None,
        json_schema: JsonObject | None = None,
        sampling: Sampling | None = None,
    ) -> LlmAnswer:
        """Ask a language model; one step, through the gateway.

        Args:
            messages: Chat messages in the form of the OpenAI wire.
            step: Name of the step, the same in every run of the agent.
            max_output_tokens: Upper limit of the answer.
            model: Name of the model; the task's default when left out.
            json_schema: JSON Schema that the answer must follow.
            sampling: How it is drawn; left out, the likeliest tokens are taken.

        Returns:
            The answer.

        Raises:
            SteelyardError: The step was refused or failed.
        """
        request = LlmRequest(
            kind="chat",
            model=model or self._model,
            messages=messages,
            max_output_tokens=max_output_tokens,
            temperature=0.0 if sampling is None else sampling.temperature,
            seed=None if sampling is None else sampling.seed,
            json_schema=json_schema,
        )
        # What is recorded of greedy steps must stay as it was before there was another kind.
        drawn = [] if sampling is None else [sampling.temperature, sampling.seed]
        asked = [request.model, messages, max_output_tokens, json_schema, *drawn]

        async def run(slot: Slot) -> JsonValue:
            return msgspec.to_builtins(await self._asking.ask(request, slot))

        return msgspec.convert(await self._steps.perform("llm", step, asked, run), LlmAnswer)

    async def embed(
        self, texts: Sequence[str], *, step: str, model: str
    ) -> tuple[tuple[float, ...], ...]:
        """Turn texts into vectors; one step, through the gateway.

        Args:
            texts: The texts.
            step: Name of the step, the same in every run of the agent.
            model: Name of an embedding model.

        Returns:
            One vector per text.

        Raises:
            SteelyardError: The step was refused or failed.
        """
        sent = list(texts)

        async def run(slot: Slot) -> JsonValue:
            return await self._asking.embed(sent, model, slot)

        return from_journal(await self._steps.perform("llm", step, [model, sent], run)).vectors

    @overload
    async def tool(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def tool(self, tool: str | NamedTool, **kwargs: Any) -> Any: ...  # noqa: ANN401 - JSON

    async def tool(self, tool: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a tool; one step, in another process.

        A tool that declares a parameter of type `steelyard.IdempotencyKey` gets the step's key
        there: every attempt of the step gets the same one. An MCP server gets it in `_meta`.

        Args:
            tool: A function marked with `@steelyard.tool`, or a name: `mcp:POOL/TOOL` is a tool of
                the MCP server that is configured as that pool.
            args: Its arguments; a named tool takes them by name alone.
            kwargs: Its arguments by name.

        Returns:
            What it returned, as JSON values.

        Raises:
            SteelyardError: The step was refused or failed.
        """
        known: Tool[..., Any] | NamedTool = NamedTool(tool) if isinstance(tool, str) else tool
        arguments = known.arguments(*args, **kwargs)

        async def run(slot: Slot) -> JsonValue:
            key = f"{self.task_id}/{slot.step_id}"
            request = ToolRequest(
                tool=known.name,
                task_id=self.task_id,
                arguments={**arguments, **known.key_argument(key)},
                timeout_s=known.timeout_s,
                memory_bytes=known.memory_bytes,
                key=key,
            )
            call = ToolCall(tool=known.name, memory_bytes=known.memory_bytes)
            _, outcome, _ = await self._dispatcher.serve_tool(self._step(slot, call), request)
            return outcome.result

        return await self._steps.perform("tool", known.step_name, [known.name, arguments], run)

    async def step(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - JSON is any value
        """Run a function right here, and record what it returns; it has no pool and no limits.

        For what is quick and must not change on a replay: a draw, a time, a small computation.
        After a crash in the middle it runs again.

        Args:
            function: A function, plain or async.
            args: Its arguments, JSON values.
            kwargs: Its arguments by name.

        Returns:
            What it returned, as JSON values.

        Raises:
            StepFailedError: It raised.
        """
        name = str(getattr(function, "__name__", "step"))
        return await self._steps.local(name, [args, kwargs], lambda: function(*args, **kwargs))

    async def sleep(self, seconds_s: float) -> None:
        """Wait; after a crash, only for what is left.

        A task that only waits, for more than a moment, is parked: its worker lets go of it, and
        the next free one goes on with it when the time has come.

        Args:
            seconds_s: For how long, in seconds.
        """

        async def run(slot: Slot) -> JsonValue:
            until_s = slot.until_s
            if until_s is None:
                until_s = self.now_s() + seconds_s
                await self._steps.wait_begins(slot, until_s)
            with self._steps.waits.waiting(Wait(until_s=until_s)):
                await asyncio.sleep(max(0.0, until_s - self.now_s()))
            return None

        await self._steps.perform("sleep", "sleep", seconds_s, run)

    async def signal(self, name: str, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - JSON
        """Wait for a value that somebody sends to this task, e.g. a person's yes.

        Args:
            name: Name of the signal; values of one name are taken in the order they were sent.
            timeout_s: Seconds to wait, also over a restart; None waits for ever. An
                `asyncio.timeout` around this would begin anew whenever the task goes on.

        Returns:
            The value.

        Raises:
            SignalTimeoutError: None was sent in time.
        """

        async def run(slot: Slot) -> JsonValue:
            until_s = slot.until_s
            if until_s is None and timeout_s is not None:
                until_s = self.now_s() + timeout_s
                await self._steps.wait_begins(slot, until_s)
            wait = Wait(until_s=until_s)
            left_s = None if until_s is None else max(0.0, until_s - self.now_s())
            try:
                with self._steps.waits.waiting(wait):
                    async with asyncio.timeout(left_s):
                        return await self._inbox.take(name, wait)
            except TimeoutError as error:
                raise SignalTimeoutError(
                    f"task {self.task_id} got no signal {name} in {timeout_s:g} s"
                ) from error

        return await self._steps.perform("signal", name, timeout_s, run)

    async def child(
        self,
        agent: AgentTask[Any, P, R],
        limits: TaskLimits,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run another task and wait for its result; it has its own journal and lease.

        Args:
            agent: What to run.
            limits: The child's. Its deadline is never later than this task's, and its budget comes
                out of this task's: without one of its own it gets all that is left, so children
                that run side by side need budgets.
            args: The agent's arguments.
            kwargs: The agent's arguments by name.

        Returns:
            What it returned.

        Raises:
            BudgetExceededError: It needed more than what was left of this task's budget.
            StepFailedError: It failed or was cancelled.
        """
        arguments = agent.arguments(*args, **kwargs)

        async def run(slot: Slot) -> JsonValue:
            return await self._children.run(agent, limits, arguments, slot)

        asked = [agent.name, arguments, limits.deadline_after_s, limits.budget_usd]
        result: R = await self._steps.perform("child", agent.name, asked, run)
        return result

    async def gather(self, *steps: Coroutine[Any, Any, R]) -> list[R]:
        """Run steps, or async functions that take steps, side by side.

        When one fails the others are cancelled, and its error is raised; of several failures the
        first branch's.

        Args:
            steps: Coroutines, not yet awaited.

        Returns:
            Their results, in order.
        """
        slot, record = self._steps.fork()
        if record is not None and record.done:
            for one in steps:
                one.close()
            raise recorded_error(record.error_code, record.error)

        waits = self._steps.waits

        async def branch(number: int, coroutine: Coroutine[Any, Any, R]) -> R:
            with self._steps.branch(f"{slot.path}.{number}"):
                return await coroutine

        running: list[asyncio.Task[R]] = []
        try:
            with waits.forked(len(steps)):
                async with asyncio.TaskGroup() as group:
                    for number, one in enumerate(steps):
                        running.append(group.create_task(branch(number, one)))
                        running[-1].add_done_callback(lambda _: waits.branch_ended())
        except BaseExceptionGroup:
            failures = [_failure(one) for one in running]
            first = next(one for one in failures if one is not None)
            if isinstance(first, SteelyardError) and not isinstance(
                first, LeaseLostError | StoreError
            ):
                await self._steps.failed(slot, first)
            raise first from None
        return [one.result() for one in running]

    def finished_steps(self) -> list[StepSummary]:
        """What is recorded so far, in order, for `wrap_up`."""
        return [
            StepSummary(name=one.name, result=one.result)
            for one in self._steps.journal.in_order()
            if one.done and not one.error_code
        ]

    def _step(self, slot: Slot, call: ToolCall) -> Step:
        return Step(
            task_id=self.task_id,
            step_id=slot.step_id,
            agent=self._terms.agent,
            name=slot.name,
            call=call,
            parents=self._dispatcher.parents(self.task_id, slot.step_id),
            deadline_s=self._terms.deadline_s,
            budget_usd=self._terms.budget_usd,
            attempt=slot.attempt,
            path=slot.path,
            fingerprint=slot.fingerprint,
            fence=self._terms.fence,
        )


def _failure(branch: "asyncio.Task[Any]") -> BaseException | None:
    return None if branch.cancelled() else branch.exception()

"""TaskContext: what a running task may ask for. It is handed over explicitly; nothing is global."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from steelyard.domain.events import JsonValue, TaskFinished, TaskSubmitted
from steelyard.domain.task import Step, ToolCall
from steelyard.errors import (
    ConfigError,
    LeaseLostError,
    PoolError,
    PoolProtocolError,
    SteelyardError,
    StepFailedError,
    StoreError,
)
from steelyard.pools.backend import (
    Embeddings,
    JsonObject,
    LlmChunk,
    LlmRequest,
    ToolRequest,
)
from steelyard.runtime.definitions import AgentTask, Tool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.embedding import from_journal, to_journal
from steelyard.runtime.inbox import Inbox
from steelyard.runtime.open_tasks import TaskLimits, TaskTerms
from steelyard.runtime.recorded_errors import recorded_error
from steelyard.runtime.retry import pause_before_retry_s
from steelyard.runtime.steps import Slot, TaskSteps
from steelyard.runtime.transcript import LlmAnswer, Transcript

P = ParamSpec("P")
R = TypeVar("R")


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a step's answer is drawn. The seed makes the draw part of the question.

    Attributes:
        temperature: Above 0; the higher, the more even the choice among tokens.
        seed: Where the draw begins; the same engine draws the same answer from it.
    """

    temperature: float
    seed: int


class LlmClient(Protocol):
    """Calls the gateway: an OpenAI-compatible endpoint like any other."""

    def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece; see `steelyard.pools.backend.LlmBackend`."""
        ...

    async def embed(
        self,
        texts: list[str],
        model: str,
        replica: int,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """Turn texts into vectors."""
        ...


class ChildTasks(Protocol):
    """Runs tasks for tasks."""

    async def run_child(
        self, agent: AgentTask[Any, ..., Any], event: TaskSubmitted
    ) -> TaskFinished:
        """Submit a task, unless it is there already, and wait for its end."""
        ...


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
        self._client, self._model = gateway
        self._children = children
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
            return await self._retried(slot, lambda one: self._ask(request, one))

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

        async def ask(slot: Slot) -> JsonValue:
            found = await self._client.embed(sent, model, 0, self._headers(slot))
            return to_journal(found)

        async def run(slot: Slot) -> JsonValue:
            return await self._retried(slot, ask)

        return from_journal(await self._steps.perform("llm", step, [model, sent], run)).vectors

    async def _retried(self, slot: Slot, ask: Callable[[Slot], Awaitable[JsonValue]]) -> JsonValue:
        """Ask the gateway, and again where it could not be reached."""
        first = slot.attempt
        while True:
            try:
                return await ask(slot)
            except PoolError as error:
                if error.upstream_code:
                    # The gateway has tried again by itself; its error is the step's error.
                    told = recorded_error(error.upstream_code, error.upstream_message)
                    if told.code != error.upstream_code:
                        raise
                    raise told from error
                pause_s = pause_before_retry_s(
                    error, slot.attempt - first, self.now_s(), self._terms.deadline_s
                )
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
                slot = msgspec.structs.replace(slot, attempt=slot.attempt + 1)

    async def _ask(self, request: LlmRequest, slot: Slot) -> JsonValue:
        sent = msgspec.structs.replace(request, extra_headers=self._headers(slot))
        transcript = Transcript()
        async with aclosing(self._client.complete(sent, 0)) as chunks:
            async for chunk in chunks:
                transcript.add(chunk)
        return msgspec.to_builtins(transcript.finish())

    async def tool(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a tool; one step, in another process.

        A tool that declares a parameter of type `steelyard.IdempotencyKey` gets the step's key
        there: every attempt of the step gets the same one.

        Args:
            tool: A function marked with `@steelyard.tool`.
            args: Its arguments.
            kwargs: Its arguments by name.

        Returns:
            What it returned, as JSON values.

        Raises:
            SteelyardError: The step was refused or failed.
        """
        arguments = tool.arguments(*args, **kwargs)

        async def run(slot: Slot) -> JsonValue:
            request = ToolRequest(
                tool=tool.name,
                task_id=self.task_id,
                arguments={**arguments, **tool.key_argument(f"{self.task_id}/{slot.step_id}")},
                timeout_s=tool.timeout_s,
                memory_bytes=tool.memory_bytes,
            )
            call = ToolCall(tool=tool.name, memory_bytes=tool.memory_bytes)
            _, outcome, _ = await self._dispatcher.serve_tool(self._step(slot, call), request)
            return outcome.result

        result: R = await self._steps.perform("tool", tool.step_name, [tool.name, arguments], run)
        return result

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

        Args:
            seconds_s: For how long, in seconds.
        """

        async def run(slot: Slot) -> JsonValue:
            until_s = slot.until_s
            if until_s is None:
                until_s = self.now_s() + seconds_s
                await self._steps.wait_begins(slot, until_s)
            await asyncio.sleep(max(0.0, until_s - self.now_s()))
            return None

        await self._steps.perform("sleep", "sleep", seconds_s, run)

    async def signal(self, name: str) -> Any:  # noqa: ANN401 - JSON is any value
        """Wait for a value that somebody sends to this task, e.g. a person's yes.

        Args:
            name: Name of the signal; values of one name are taken in the order they were sent.

        Returns:
            The value.
        """

        async def run(_: Slot) -> JsonValue:
            return await self._inbox.take(name)

        return await self._steps.perform("signal", name, None, run)

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
            limits: The child's. Its deadline is never later than this task's.
            args: The agent's arguments.
            kwargs: The agent's arguments by name.

        Returns:
            What it returned.

        Raises:
            StepFailedError: It failed or was cancelled.
        """
        arguments = agent.arguments(*args, **kwargs)

        async def run(slot: Slot) -> JsonValue:
            if self._children is None:
                raise ConfigError(
                    f"task {self.task_id} cannot have children: it runs without a task store; "
                    "submit it to a worker"
                )
            event = TaskSubmitted(
                t_s=self.now_s(),
                task_id=f"{self.task_id}.{slot.path}",
                agent=agent.name,
                deadline_s=limits.deadline_from(self.now_s(), self._terms.deadline_s),
                budget_usd=limits.budget_usd,
                arguments=arguments,
                parent=self.task_id,
            )
            ended = await self._children.run_child(agent, event)
            if ended.status != "succeeded":
                raise StepFailedError(
                    f"child task {event.task_id} of agent {agent.name} {ended.status}: "
                    f"{ended.error or 'no error was recorded'}"
                )
            return ended.result

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

        async def branch(number: int, coroutine: Coroutine[Any, Any, R]) -> R:
            with self._steps.branch(f"{slot.path}.{number}"):
                return await coroutine

        running: list[asyncio.Task[R]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for number, one in enumerate(steps):
                    running.append(group.create_task(branch(number, one)))
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

    def _headers(self, slot: Slot) -> dict[str, str]:
        fence = "-" if self._terms.fence is None else str(self._terms.fence)
        headers = {
            "Steelyard-Task": self.task_id,
            "Steelyard-Agent": self._terms.agent,
            "Steelyard-Step": slot.name,
            "Idempotency-Key": f"{self.task_id}/{slot.step_id}",
            "Steelyard-Journal": f"{fence} {slot.attempt} {slot.path} {slot.fingerprint}",
        }
        if self._terms.deadline_s is not None:
            left_s = max(0.0, self._terms.deadline_s - self._dispatcher.now_s())
            headers["Steelyard-Deadline"] = repr(left_s)
        if self._terms.budget_usd is not None:
            headers["Steelyard-Budget-Usd"] = repr(self._terms.budget_usd)
        return headers


def _failure(branch: "asyncio.Task[Any]") -> BaseException | None:
    return None if branch.cancelled() else branch.exception()


def decode_answer(answer: LlmAnswer, step: str) -> Any:  # noqa: ANN401 - JSON is any value
    """What does an answer say that was constrained to JSON?

    Args:
        answer: The answer.
        step: Name of the step, for the message.

    Returns:
        The JSON value.

    Raises:
        PoolProtocolError: It is no JSON, e.g. since it was cut off.
    """
    try:
        return msgspec.json.decode(answer.text)
    except msgspec.DecodeError as error:
        raise PoolProtocolError(
            f"step {step} answered no JSON ({error}, finish reason {answer.finish_reason}); "
            "raise max_output_tokens"
        ) from error

"""TaskContext: what a running task may ask for. It is handed over explicitly; nothing is global."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from steelyard.domain.task import Step, ToolCall
from steelyard.errors import PoolProtocolError
from steelyard.pools.backend import JsonObject, LlmChunk, LlmRequest, ToolRequest
from steelyard.runtime.definitions import Tool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskTerms
from steelyard.runtime.transcript import LlmAnswer, Transcript

P = ParamSpec("P")
R = TypeVar("R")


class LlmClient(Protocol):
    """Calls the gateway: an OpenAI-compatible endpoint like any other."""

    def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece; see `steelyard.pools.backend.LlmBackend`."""
        ...


class TaskContext:
    """The steps of one running task.

    Thin for now: results are journalled and not yet replayed after a crash, and `sleep`, `signal`
    and child tasks are missing.

    Args:
        task_id: The task.
        terms: Its agent, deadline and budget.
        dispatcher: Places and runs tool steps.
        client: Asks the gateway, which places LLM steps.
        model: Model of LLM steps that name none.
    """

    def __init__(
        self,
        task_id: str,
        terms: TaskTerms,
        dispatcher: Dispatcher,
        client: LlmClient,
        model: str,
    ) -> None:
        self.task_id = task_id
        self._terms = terms
        self._dispatcher = dispatcher
        self._client = client
        self._model = model

    async def llm(
        self,
        messages: list[JsonObject],
        *,
        step: str,
        max_output_tokens: int,
        model: str | None = None,
        json_schema: JsonObject | None = None,
    ) -> LlmAnswer:
        """Ask a language model; one step, through the gateway.

        Args:
            messages: Chat messages in the form of the OpenAI wire.
            step: Name of the step, the same in every run of the agent.
            max_output_tokens: Upper limit of the answer.
            model: Name of the model; the task's default when left out.
            json_schema: JSON Schema that the answer must follow.

        Returns:
            The answer, decoded greedily.

        Raises:
            SteelyardError: The step was refused or failed.
        """
        step_id = self._dispatcher.next_step_id(self.task_id)
        request = LlmRequest(
            kind="chat",
            model=model or self._model,
            messages=messages,
            max_output_tokens=max_output_tokens,
            temperature=0.0,
            json_schema=json_schema,
            extra_headers=self._headers(step, step_id),
        )
        transcript = Transcript()
        async with aclosing(self._client.complete(request, 0)) as chunks:
            async for chunk in chunks:
                transcript.add(chunk)
        return transcript.finish()

    async def tool(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a tool; one step, in another process.

        Args:
            tool: A function marked with `@steelyard.tool`.
            args: Its arguments.
            kwargs: Its arguments by name.

        Returns:
            What it returned, as JSON values.

        Raises:
            SteelyardError: The step was refused or failed.
        """
        step_id = self._dispatcher.next_step_id(self.task_id)
        step = Step(
            task_id=self.task_id,
            step_id=step_id,
            agent=self._terms.agent,
            name=tool.step_name,
            call=ToolCall(tool=tool.name, memory_bytes=tool.memory_bytes),
            parents=self._dispatcher.parents(self.task_id, step_id),
            deadline_s=self._terms.deadline_s,
            budget_usd=self._terms.budget_usd,
        )
        request = ToolRequest(
            tool=tool.name,
            arguments=tool.arguments(*args, **kwargs),
            timeout_s=tool.timeout_s,
            memory_bytes=tool.memory_bytes,
        )
        _, outcome, _ = await self._dispatcher.serve_tool(step, request)
        result: R = outcome.result
        return result

    async def gather(self, *steps: Coroutine[Any, Any, R]) -> list[R]:
        """Run steps side by side; when one fails the others are cancelled.

        Args:
            steps: Calls of `llm` and `tool`, not yet awaited.

        Returns:
            Their results, in order.
        """
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(step) for step in steps]
        return [one.result() for one in running]

    def _headers(self, step: str, step_id: int) -> dict[str, str]:
        headers = {
            "Steelyard-Task": self.task_id,
            "Steelyard-Agent": self._terms.agent,
            "Steelyard-Step": step,
            "Idempotency-Key": f"{self.task_id}/{step_id}",
        }
        if self._terms.deadline_s is not None:
            left_s = max(0.0, self._terms.deadline_s - self._dispatcher.now_s())
            headers["Steelyard-Deadline"] = repr(left_s)
        if self._terms.budget_usd is not None:
            headers["Steelyard-Budget-Usd"] = repr(self._terms.budget_usd)
        return headers


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

"""How a task asks a language model: through the gateway, like any other client."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec

from steelyard.domain.events import JsonValue
from steelyard.errors import PoolError, PoolProtocolError
from steelyard.pools.backend import Embeddings, LlmChunk, LlmRequest
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.embedding import to_journal
from steelyard.runtime.open_tasks import TaskTerms
from steelyard.runtime.recorded_errors import recorded_error
from steelyard.runtime.retry import pause_before_retry_s
from steelyard.runtime.steps import Slot
from steelyard.runtime.transcript import LlmAnswer, Transcript

T = TypeVar("T")


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


class Asking:
    """Asks for one task.

    Args:
        task_id: The task.
        terms: Agent, deadline and budget.
        dispatcher: Tells the time.
        client: Calls the gateway.
    """

    def __init__(
        self, task_id: str, terms: TaskTerms, dispatcher: Dispatcher, client: LlmClient
    ) -> None:
        self._task_id = task_id
        self._terms = terms
        self._dispatcher = dispatcher
        self._client = client

    async def ask(self, request: LlmRequest, slot: Slot) -> LlmAnswer:
        """Ask, and ask again where the gateway was not reached.

        Args:
            request: The question.
            slot: The step.

        Returns:
            The answer.

        Raises:
            SteelyardError: The step was refused or failed; the gateway's error as it was there.
        """
        return await self._retried(slot, lambda one: self._attempt(request, one))

    async def embed(self, texts: list[str], model: str, slot: Slot) -> JsonValue:
        """Turn texts into vectors; asked again as a question is.

        Args:
            texts: The texts.
            model: Name of an embedding model.
            slot: The step.

        Returns:
            The vectors as they are journalled; see `steelyard.runtime.embedding`.

        Raises:
            SteelyardError: As `ask`.
        """

        async def attempt(one: Slot) -> JsonValue:
            return to_journal(await self._client.embed(texts, model, 0, self._headers(one)))

        return await self._retried(slot, attempt)

    async def _retried(self, slot: Slot, attempt: Callable[[Slot], Awaitable[T]]) -> T:
        first = slot.attempt
        while True:
            try:
                return await attempt(slot)
            except PoolError as error:
                if error.upstream_code:
                    # The gateway has tried again by itself; its error is the step's error.
                    told = recorded_error(error.upstream_code, error.upstream_message)
                    if told.code != error.upstream_code:
                        raise
                    raise told from error
                pause_s = pause_before_retry_s(
                    error, slot.attempt - first, self._dispatcher.now_s(), self._terms.deadline_s
                )
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
                slot = msgspec.structs.replace(slot, attempt=slot.attempt + 1)

    async def _attempt(self, request: LlmRequest, slot: Slot) -> LlmAnswer:
        sent = msgspec.structs.replace(request, extra_headers=self._headers(slot))
        transcript = Transcript()
        async with aclosing(self._client.complete(sent, 0)) as chunks:
            async for chunk in chunks:
                transcript.add(chunk)
        return transcript.finish()

    def _headers(self, slot: Slot) -> dict[str, str]:
        fence = "-" if self._terms.fence is None else str(self._terms.fence)
        headers = {
            "Steelyard-Task": self._task_id,
            "Steelyard-Agent": self._terms.agent,
            "Steelyard-Step": slot.name,
            "Idempotency-Key": f"{self._task_id}/{slot.step_id}",
            "Steelyard-Journal": f"{fence} {slot.attempt} {slot.path} {slot.fingerprint}",
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

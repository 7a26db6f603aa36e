"""Which task and step is a request? Tasks without a name are opened and closed around it."""

import asyncio
from types import TracebackType

from steelyard.domain.events import TaskStatus
from steelyard.domain.task import LlmCall, OnMiss, Step
from steelyard.errors import SteelyardBugError, SteelyardError
from steelyard.gateway.headers import TaskHeaders
from steelyard.gateway.prefix import Prefixes
from steelyard.runtime.dispatcher import Dispatcher

# What an answer of unlimited length is taken for until lengths of its step were seen.
_USUAL_OUTPUT_TOKENS = 1024
# The estimate of a prompt's length may be off by this factor; then the engine's count decides.
_ESTIMATE_SLACK = 1.5


class RequestTask:
    """The task of one request, open while the request runs.

    Args:
        dispatcher: Where tasks are opened and closed.
        headers: What the request says about its task.
        on_miss: What to do at a missed deadline when the headers do not say.
        task_id: Of a task that was drawn for the request before; empty draws one.
    """

    def __init__(
        self, dispatcher: Dispatcher, headers: TaskHeaders, on_miss: OnMiss, task_id: str = ""
    ) -> None:
        self._dispatcher = dispatcher
        self._headers = headers
        self._on_miss: OnMiss = headers.on_miss or on_miss
        self.task_id = headers.task_id or task_id or dispatcher.new_task_id()

    @property
    def journal(self) -> bool:
        """Is the answer to be kept in the log? Yes where the caller numbers its steps."""
        return self._headers.step_id is not None

    @property
    def remaining_s(self) -> float | None:
        """Seconds after which the answer is of no use; None where a late one is."""
        terms = self._dispatcher.task_terms(self.task_id)
        if self._on_miss != "refuse" or terms is None or terms.deadline_s is None:
            return None
        return max(0.0, terms.deadline_s - self._dispatcher.now_s())

    def __enter__(self) -> "RequestTask":
        """Open the task, unless it is open."""
        headers = self._headers
        deadline_s = headers.deadline_s
        if headers.deadline_after_s is not None:
            deadline_s = self._dispatcher.now_s() + headers.deadline_after_s
        # A task that is open and was opened by no request has somebody who will close it.
        named = self._dispatcher.named
        is_open = self._dispatcher.task_terms(self.task_id) is not None
        if headers.task_id is not None and (not is_open or self.task_id in named):
            named.begin(self.task_id, told=not headers.path)
        self._dispatcher.open_task(self.task_id, headers.agent, deadline_s, headers.budget_usd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the task if it is this request's own; a named one stays open for the next."""
        status: TaskStatus = "succeeded"
        told: SteelyardError | None = None
        if isinstance(error, asyncio.CancelledError):
            status = "cancelled"
        elif isinstance(error, SteelyardError):
            status, told = "failed", error
        elif error is not None:
            status, told = "failed", SteelyardBugError("the gateway failed; see its log")
        if self._headers.task_id is None:
            self._dispatcher.close_task(self.task_id, status, told)
        else:
            self._dispatcher.named.end(self.task_id, self._dispatcher.now_s(), status, told)

    def step(
        self, name: str, model: str, prefixes: Prefixes, max_output_tokens: int | None
    ) -> Step:
        """The request as a step of its task.

        Args:
            name: What such steps are called when the caller gives no name.
            model: Name of the model.
            prefixes: Boundaries of the prompt.
            max_output_tokens: Limit of all answers together; None without one.

        Returns:
            The step, with the terms of its task.
        """
        dispatcher, headers = self._dispatcher, self._headers
        call = llm_call(dispatcher, model, prefixes, max_output_tokens)
        terms = dispatcher.task_terms(self.task_id)
        step_id = headers.step_id
        if step_id is None:
            step_id = dispatcher.next_step_id(self.task_id)
        return Step(
            task_id=self.task_id,
            step_id=step_id,
            agent=headers.agent if terms is None else terms.agent,
            name=headers.step or name,
            call=call,
            parents=dispatcher.parents(self.task_id, step_id),
            deadline_s=None if terms is None else terms.deadline_s,
            budget_usd=None if terms is None else terms.budget_usd,
            on_miss=self._on_miss,
            attempt=headers.attempt,
            path=headers.path,
            fingerprint=headers.fingerprint,
            fence=headers.fence,
            priority=headers.priority,
            trace_parent=headers.trace_parent,
        )


def llm_call(
    dispatcher: Dispatcher, model: str, prefixes: Prefixes, max_output_tokens: int | None
) -> LlmCall:
    """What does a request ask of a model, as the policy sees it?

    Args:
        dispatcher: Knows how long prompts may be.
        model: Name of the model.
        prefixes: Boundaries of the prompt.
        max_output_tokens: Limit of all answers together; None without one.
    """
    longest, input_tokens = dispatcher.context_tokens(model), prefixes.input_tokens
    prefix_tokens = prefixes.tokens
    if longest <= input_tokens < longest * _ESTIMATE_SLACK:
        input_tokens = longest - 1
        prefix_tokens = tuple(min(tokens, input_tokens) for tokens in prefix_tokens)
    return LlmCall(
        model=model,
        input_tokens=input_tokens,
        max_output_tokens=_USUAL_OUTPUT_TOKENS if max_output_tokens is None else max_output_tokens,
        prefix_hashes=prefixes.hashes,
        prefix_tokens=prefix_tokens,
    )


def context_tokens(dispatcher: Dispatcher, model: str) -> int:
    """How long may prompt and answer be in the roomiest pool that serves the model?"""
    return dispatcher.context_tokens(model)


def surely_too_long(dispatcher: Dispatcher, model: str, input_tokens: int) -> bool:
    """Is a prompt too long for every pool, even if its estimated length is too high by half?"""
    return input_tokens >= context_tokens(dispatcher, model) * _ESTIMATE_SLACK

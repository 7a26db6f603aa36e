"""Which span an endpoint is told to go on from."""

import msgspec

from steelyard.domain.task import Step
from steelyard.domain.trace_context import (
    TraceParent,
    parse_traceparent,
    span_id_of,
    trace_id_of,
)
from steelyard.pools.backend import LlmRequest


def traced_request(request: LlmRequest, step: Step, *, kept: bool) -> LlmRequest:
    """What does an endpoint get, that its spans be part of the caller's trace?

    Args:
        request: The request.
        step: Its step.
        kept: Whether spans of steps are kept here. If so, the endpoint's lie below the step's;
            otherwise the caller's `traceparent` is passed on as it came.

    Returns:
        The request, with a `traceparent` header where there is a trace to go on with.
    """
    if not kept and not step.trace_parent:
        return request
    caller = parse_traceparent(step.trace_parent)
    told = caller
    if kept and (caller is None or caller.sampled):
        trace_id = trace_id_of(step.task_id) if caller is None else caller.trace_id
        told = TraceParent(trace_id, span_id_of(step.task_id, step.step_id))
    if told is None:
        return request
    headers = {**request.extra_headers, "traceparent": told.header()}
    return msgspec.structs.replace(request, extra_headers=headers)

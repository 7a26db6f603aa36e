"""pydantic-ai under OpenTelemetry: the trace is the task, by its `traceparent` header.

    OPENAI_API_KEY=... python examples/frameworks/pydantic_ai_agent.py

A program that is traced already needs no name of ours: the trace's id names the task. Only what a
trace does not say, agent, deadline and budget, is added. No exporter is set up: spans go nowhere.
"""

import os
from typing import Literal

from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

trace.set_tracer_provider(TracerProvider())


class Ticket(BaseModel):
    """Where a message of a customer goes."""

    team: Literal["billing", "technical", "sales"]
    urgent: bool


provider = OpenAIProvider(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"))
model = OpenAIChatModel("smollm2-135m", provider=provider)
sorter = Agent(model, name="sorter", output_type=NativeOutput(Ticket))
writer = Agent(model, name="writer", instructions="Answer the customer in one short sentence.")


def settings(step: str) -> OpenAIChatModelSettings:
    """Terms of a request: the current trace, and what Steelyard wants to know beside it."""
    headers = {
        "Steelyard-Agent": "pydantic-ai",
        "Steelyard-Step": step,
        "Steelyard-Deadline": "120",
        "Steelyard-Budget-Usd": "0.01",
    }
    inject(headers)  # traceparent
    return OpenAIChatModelSettings(max_tokens=40, temperature=0, extra_headers=headers)


message = "My invoice is wrong, I was charged twice!"
with trace.get_tracer("support").start_as_current_span("answer a customer") as span:
    print(f"task: {trace.format_trace_id(span.get_span_context().trace_id)}")
    ticket = sorter.run_sync(message, model_settings=settings("sort")).output
    print(f"ticket: {ticket!r}")
    reply = writer.run_sync(message, model_settings=settings("write"))
    print(f"reply: {reply.output}")

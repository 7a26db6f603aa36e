"""openai-agents as it comes: it asks /v1/responses."""

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

LOCAL = "smollm2-135m"
QUIET = RunConfig(tracing_disabled=True)


class Sky(BaseModel):
    """The weather."""

    sky: str


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


def _model(base_url: str, name: str) -> OpenAIResponsesModel:
    client = AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0)
    return OpenAIResponsesModel(name, client)


@pytest.mark.parametrize("name", [LOCAL, "mock"])
async def test_an_agent_answers(base_url: str, name: str) -> None:
    agent = Agent(
        name="greeter",
        instructions="Be brief.",
        model=_model(base_url, name),
        model_settings=ModelSettings(max_tokens=400),
    )
    result = await Runner.run(agent, "Say hello.", run_config=QUIET)
    assert result.final_output
    assert result.context_wrapper.usage.input_tokens > 0


async def test_an_agent_calls_a_tool_and_goes_on(base_url: str) -> None:
    agent = Agent(name="w", model=_model(base_url, "mock"), tools=[weather])
    result = await Runner.run(agent, "Weather in Oslo?", run_config=QUIET)
    assert "rain in Oslo" in result.final_output


async def test_an_agent_goes_on_from_a_response(base_url: str) -> None:
    agent = Agent(name="w", model=_model(base_url, "mock"), tools=[weather])
    result = await Runner.run(agent, "Weather?", run_config=QUIET, auto_previous_response_id=True)
    assert "rain in Oslo" in result.final_output
    assert result.last_response_id is not None


async def test_an_agent_streams_and_hands_off(base_url: str) -> None:
    expert = Agent(name="expert", model=_model(base_url, "mock"), tools=[weather])
    first = Agent(name="first", model=_model(base_url, "mock"), handoffs=[expert])
    streamed = Runner.run_streamed(first, "Weather?", run_config=QUIET)
    kinds = [event.type async for event in streamed.stream_events()]
    assert "agent_updated_stream_event" in kinds
    assert "raw_response_event" in kinds
    assert streamed.last_agent.name == "expert"


async def test_an_output_follows_a_schema(base_url: str) -> None:
    agent = Agent(name="s", model=_model(base_url, "mock"), output_type=Sky)
    result = await Runner.run(agent, "Weather?", run_config=QUIET)
    assert result.final_output == Sky(sky="rain")

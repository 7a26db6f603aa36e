"""pydantic-ai with its OpenAI models, of chats and of responses."""

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

LOCAL = "smollm2-135m"
KINDS = pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel])


class Sky(BaseModel):
    """The weather."""

    sky: str


def _model(
    kind: type[OpenAIChatModel | OpenAIResponsesModel], base_url: str, name: str
) -> OpenAIChatModel | OpenAIResponsesModel:
    return kind(name, provider=OpenAIProvider(base_url=base_url, api_key="unused"))


@KINDS
@pytest.mark.parametrize("name", [LOCAL, "mock"])
async def test_an_agent_answers(
    kind: type[OpenAIChatModel | OpenAIResponsesModel], base_url: str, name: str
) -> None:
    agent = Agent(_model(kind, base_url, name), model_settings={"max_tokens": 24})
    answer = await agent.run("Say hello.")
    assert answer.output
    assert answer.usage.input_tokens > 0


@KINDS
async def test_an_agent_streams(
    kind: type[OpenAIChatModel | OpenAIResponsesModel], base_url: str
) -> None:
    agent = Agent(_model(kind, base_url, "mock"))
    async with agent.run_stream("Say hello.") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True)]
    assert "".join(pieces).strip() == "You said: Say hello."


@KINDS
async def test_an_agent_calls_a_tool_and_goes_on(
    kind: type[OpenAIChatModel | OpenAIResponsesModel], base_url: str
) -> None:
    agent = Agent(_model(kind, base_url, "mock"))

    @agent.tool_plain
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"rain in {city}"

    answer = await agent.run("Weather in Oslo?")
    assert "rain in Oslo" in answer.output


@KINDS
async def test_an_output_follows_a_schema(
    kind: type[OpenAIChatModel | OpenAIResponsesModel], base_url: str
) -> None:
    agent = Agent(_model(kind, base_url, "mock"), output_type=NativeOutput(Sky))
    assert (await agent.run("Weather?")).output == Sky(sky="rain")

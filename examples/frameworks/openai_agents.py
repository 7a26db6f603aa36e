"""The OpenAI Agents SDK with nothing of ours in it: the key is the identity.

    export OPENAI_API_KEY=$(steelyard keys create run-7 --task run-7 --agent concierge \
        --deadline 120s --budget 0.01)
    export OPENAI_BASE_URL=http://127.0.0.1:8080/v1
    python examples/frameworks/openai_agents.py

Environment variables carry no headers. A key that was made for one task brings its name, its
agent, its deadline and its budget; whoever starts the agent makes one, and the agent need not know.
"""

from typing import Literal

from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled

# The SDK would send traces to OpenAI, with OPENAI_API_KEY, which is a key of ours here.
set_tracing_disabled(disabled=True)


@function_tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Tell the weather of a city."""
    skies = {"Oslo": "rain, 4 degrees", "Rome": "sun, 19 degrees"}
    return f"The weather in {city}: {skies[city]}"


# Two agents, one task: the model is too small to end a loop of tool calls by itself.
finder = Agent(
    name="finder",
    model="smollm2-135m",
    model_settings=ModelSettings(tool_choice="required", max_tokens=40, temperature=0.0),
    tools=[weather],
    tool_use_behavior="stop_on_first_tool",
)
writer = Agent(
    name="writer",
    instructions="Say it in one friendly sentence.",
    model="smollm2-135m",
    model_settings=ModelSettings(max_tokens=120, temperature=0.0),
)
found = Runner.run_sync(finder, "What is the weather in Rome?")
print(f"weather: {found.final_output}")
print(f"answer: {Runner.run_sync(writer, found.final_output).final_output}")

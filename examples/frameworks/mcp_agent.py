"""Tools of an MCP server over stdio, used by the OpenAI Agents SDK; headers by `ModelSettings`.

    OPENAI_API_KEY=... python examples/frameworks/mcp_agent.py

`extra_headers` go with every request of a run. The tool runs in the server's process, beside the
agent; to have it placed, priced and confined as a step, give the server to a pool instead
(docs/how-to/tools.md).
"""

import asyncio
import os
import sys
import uuid
from pathlib import Path

from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from agents.mcp import MCPServerStdio
from openai import AsyncOpenAI

# The SDK would send traces to OpenAI, with OPENAI_API_KEY, which is a key of ours here.
set_tracing_disabled(disabled=True)
TASK = f"mcp-{uuid.uuid4().hex[:8]}"
SERVER = Path(__file__).with_name("mcp_server.py")


def settings(tool_choice: str | None = None) -> ModelSettings:
    """What goes with each request of an agent."""
    return ModelSettings(
        tool_choice=tool_choice,
        max_tokens=120,
        temperature=0.0,
        extra_headers={
            "Steelyard-Task": TASK,
            "Steelyard-Agent": "mcp",
            "Steelyard-Deadline": "120",
            "Steelyard-Budget-Usd": "0.01",
        },
    )


async def main() -> None:
    """One run of an agent whose tools are a server's."""
    client = AsyncOpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"))
    model = OpenAIResponsesModel("smollm2-135m", client)
    async with MCPServerStdio({"command": sys.executable, "args": [str(SERVER)]}) as server:
        finder = Agent(
            name="finder",
            model=model,
            model_settings=settings(tool_choice="required"),
            mcp_servers=[server],
            tool_use_behavior="stop_on_first_tool",
        )
        found = await Runner.run(finder, "What is the weather in Rome?")
    said = found.new_items[-1].output["text"]
    print(f"weather: {said}")
    writer = Agent(
        name="writer",
        instructions="Say it in one friendly sentence.",
        model=model,
        model_settings=settings(),
    )
    print(f"answer: {(await Runner.run(writer, said)).final_output}")


print(f"task: {TASK}")
asyncio.run(main())

"""The openai package alone: a loop of model, tool, model. Identity travels in headers.

    OPENAI_API_KEY=... python examples/frameworks/openai_sdk.py

What holds for the whole task stands on the client; `Steelyard-Step` is said with each request, and
Steelyard learns lengths and times under that name.
"""

import json
import os
import uuid
from typing import Any

from openai import OpenAI

TASK = f"openai-sdk-{uuid.uuid4().hex[:8]}"
CITIES = {"Oslo": "rain, 4 degrees", "Rome": "sun, 19 degrees"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": list(CITIES)}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    default_headers={
        "Steelyard-Task": TASK,
        "Steelyard-Agent": "openai-sdk",
        "Steelyard-Deadline": "120",  # seconds from the first request, for the whole task
        "Steelyard-Budget-Usd": "0.01",  # for the whole task
    },
)


def ask(step: str, messages: list[Any], tool_choice: Any) -> Any:  # noqa: ANN401
    """One request, one step of the task."""
    answer = client.chat.completions.with_raw_response.create(
        model="smollm2-135m",
        messages=messages,
        tools=[TOOL],
        tool_choice=tool_choice,
        max_completion_tokens=40,
        temperature=0,
        extra_headers={"Steelyard-Step": step},
    )
    print(f"{step}: {answer.headers['Steelyard-Pool']}, {answer.headers['Steelyard-Cost-Usd']} USD")
    return answer.parse().choices[0].message


print(f"task: {TASK}")
asked = ask("choose", [{"role": "user", "content": "What is the weather in Rome?"}], "required")
city = json.loads(asked.tool_calls[0].function.arguments)["city"]
found = f"The weather in {city}: {CITIES[city]}"
print(f"weather: {found}")
# A small model answers better from the fact alone than from the whole conversation.
system = {"role": "system", "content": "Say it in one friendly sentence."}
print(f"answer: {ask('answer', [system, {'role': 'user', 'content': found}], 'none').content}")

"""smolagents: a tool-calling agent; headers stand on the client that its model makes.

    OPENAI_API_KEY=... python examples/frameworks/smolagents_agent.py

The client belongs to the model: a program with many runs makes a model for each, which costs
nothing. Steps are not named here; all of them are `chat`.
"""

import os
import uuid

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # before the import: nothing is told to others

from smolagents import OpenAIModel, Tool, ToolCallingAgent

TASK = f"smolagents-{uuid.uuid4().hex[:8]}"


class Weather(Tool):
    """What the weather is."""

    name = "weather"
    description = "Tells the weather of a city."
    inputs = {  # noqa: RUF012 - as smolagents wants it
        "city": {"type": "string", "description": "its name", "enum": ["Oslo", "Rome"]}
    }
    output_type = "string"

    def forward(self, city: str) -> str:
        """Tell it."""
        return {"Oslo": "rain, 4 degrees", "Rome": "sun, 19 degrees"}[city]


model = OpenAIModel(
    model_id="smollm2-135m",
    api_base=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY"),
    client_kwargs={
        "default_headers": {
            "Steelyard-Task": TASK,
            "Steelyard-Agent": "smolagents",
            "Steelyard-Deadline": "120",
            "Steelyard-Budget-Usd": "0.01",
        }
    },
    max_tokens=60,
    temperature=0,
)
# After max_steps smolagents asks once more, for words: a model this small never ends by itself.
agent = ToolCallingAgent(tools=[Weather()], model=model, max_steps=1, verbosity_level=0)
# Short: its own instructions are pages of examples, more than 135M parameters read well.
agent.prompt_templates["system_prompt"] = "Call weather, then final_answer."
print(f"task: {TASK}")
answer = agent.run("Call weather for Rome")
for step in agent.memory.steps:
    for call in getattr(step, "tool_calls", None) or ():
        print(f"{call.name}({call.arguments})")
print(f"answer: {answer}")

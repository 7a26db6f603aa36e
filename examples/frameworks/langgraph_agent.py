"""LangGraph: the graph's thread is the task, a node's name is the step's.

    OPENAI_API_KEY=... python examples/frameworks/langgraph_agent.py

Each node gets LangGraph's configuration; `thread_id` and the node's name become headers, so that
a graph that is resumed under its thread goes on in the same task. LangSmith's tracing stays off.
"""

import os
import uuid
from typing import Annotated, Any, Literal, TypedDict

os.environ["LANGSMITH_TRACING"] = "false"  # before the import: nothing is told to others

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode


class State(TypedDict):
    """What the nodes hand on."""

    messages: Annotated[list[AnyMessage], add_messages]


@tool
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Tell the weather of a city."""
    skies = {"Oslo": "rain, 4 degrees", "Rome": "sun, 19 degrees"}
    return f"The weather in {city}: {skies[city]}"


model = ChatOpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    model="smollm2-135m",
    max_completion_tokens=40,
    temperature=0,
)


def headers(config: RunnableConfig) -> dict[str, str]:
    """What Steelyard is told of this run and this node."""
    return {
        "Steelyard-Task": config["configurable"]["thread_id"],
        "Steelyard-Agent": "langgraph",
        "Steelyard-Step": config["metadata"]["langgraph_node"],
        "Steelyard-Deadline": "120",
        "Steelyard-Budget-Usd": "0.01",
    }


def choose(state: State, config: RunnableConfig) -> dict[str, Any]:
    """The model calls a tool."""
    caller = model.bind_tools([weather], tool_choice="required")
    return {"messages": [caller.invoke(state["messages"], extra_headers=headers(config))]}


def answer(state: State, config: RunnableConfig) -> dict[str, Any]:
    """The model answers from what the tool said; a small one does it best from that alone."""
    said = [("system", "Say it in one friendly sentence."), ("user", state["messages"][-1].text)]
    return {"messages": [model.invoke(said, extra_headers=headers(config))]}


graph = StateGraph(State)
graph.add_node("choose", choose)
graph.add_node("tools", ToolNode([weather]))
graph.add_node("answer", answer)
graph.add_edge(START, "choose").add_edge("choose", "tools")
graph.add_edge("tools", "answer").add_edge("answer", END)
thread = f"langgraph-{uuid.uuid4().hex[:8]}"
print(f"task: {thread}")
question: Any = {"messages": [("user", "What is the weather in Rome?")]}
ended = graph.compile().invoke(question, {"configurable": {"thread_id": thread}})
for message in ended["messages"]:
    print(f"{message.type}: {message.text or message.tool_calls}")

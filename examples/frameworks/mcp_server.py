"""An MCP server with one tool, on standard input and output; `mcp_agent.py` starts it."""

from typing import Literal

from mcp.server import MCPServer

server = MCPServer("weather")


@server.tool()
def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Tell the weather of a city."""
    skies = {"Oslo": "rain, 4 degrees", "Rome": "sun, 19 degrees"}
    return f"The weather in {city}: {skies[city]}"


if __name__ == "__main__":
    server.run("stdio")

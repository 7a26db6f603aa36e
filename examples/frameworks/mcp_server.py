"""An MCP server with one tool, on standard input and output; `mcp_agent.py` starts it."""

from typing import Literal

from mcp.server import MCPServer

server = MCPServer("stock")


@server.tool()
def in_stock(article: Literal["scale", "weight"]) -> str:
    """Tell how many of an article are in stock."""
    pieces = {"scale": 3, "weight": 120}[article]
    return f"{pieces} pieces of {article} are in stock."


if __name__ == "__main__":
    server.run("stdio")

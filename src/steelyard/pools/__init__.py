"""Pools: adapters to real hardware behind one interface.

`backend` has the interface. `engine` is the embedded CPU engine in child processes, `endpoint` any
OpenAI-compatible server, `tools` worker processes that run tools. Importing this package loads
none of them.
"""

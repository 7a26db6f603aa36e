"""Pools on the nodes of a Ray cluster: engines and tool workers as actors.

A gateway holds no connection to Ray: a child process does (`driver`), one for each pool, because a
Ray driver ends its process when it loses the cluster (ADR 28). `link` supervises it. `members`
decides which actors there are, `cluster` is the one module that imports Ray, and `host` is what
runs on a node: the same backends as on one machine.
"""

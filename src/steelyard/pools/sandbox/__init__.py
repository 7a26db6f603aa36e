"""Sandboxes for tools: namespaces, Landlock, seccomp, cgroups and resource limits on Linux.

`launch` starts a process inside, `entry` is what runs first in there, `zygote` then runs one call
after another, each in a process of its own.
"""

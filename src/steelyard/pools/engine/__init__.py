"""The embedded CPU engine: one supervised child process per replica, one thread and core each.

`pool` is what callers use. `supervisor` starts, watches and restarts a child; `worker` is the
child's main program, `loop` its work; `adapter` is what an inference library must offer.
"""

"""The live system on the wall clock: recording, dispatching, and multi-step tasks."""

"""Steelyard runs, plans, simulates and reports multi-step AI agents on mixed fleets.

Importing this package loads no HTTP stack, solver, engine or plotting; the command line and the
sub-packages load what they need.
"""

from steelyard.runtime.definitions import NO_KEY, IdempotencyKey, task, tool

__version__ = "0.1.0"

__all__ = ["NO_KEY", "IdempotencyKey", "__version__", "task", "tool"]

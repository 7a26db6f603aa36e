"""Which pools are there, at what price, and which curves do steps see of them?"""

from array import array

import numpy as np

from steelyard.domain.pool import PoolSpec
from steelyard.fleet.view import LlmArrays, ToolArrays, llm_arrays, tool_arrays
from steelyard.perf.predict import FloatArray

# What a step asks for that is none of a model: a tool.
NO_MODEL = ""
# Curves are kept per model and list of allowed pools, of which callers have few.
_MAX_ARRAYS = 1000


class Roster:
    """The pools of a fleet in the order in which they joined; one that leaves keeps its place.

    Attributes:
        pools: Their specifications, those of pools that leave included.
        staying: Those that take steps.
        index: Name to place.
        rents: Rent of a replica in USD per hour, by pool.
        rent_usd_per_hour: The same for NumPy.
        bid_usd_per_hour: Price by which pools are compared, by pool.
        arrays: Curves by model and allowed pools, as far as they were asked for.
    """

    def __init__(self) -> None:
        self.pools: tuple[PoolSpec, ...] = ()
        self.staying: tuple[PoolSpec, ...] = ()
        self.index: dict[str, int] = {}
        self.rents: list[float] = []
        self.rent_usd_per_hour: FloatArray = np.zeros(0, dtype=np.float64)
        self.bid_usd_per_hour = array("d")
        self.arrays: dict[tuple[str, tuple[str, ...]], LlmArrays | ToolArrays] = {}
        self._leaving: set[str] = set()

    def leaves(self, pool: str) -> bool:
        """Has the pool of this name left, so that no step is placed there any more?"""
        return pool in self._leaving

    def has(self, pool: str, replica: int) -> bool:
        """Has a pool a replica of this number, or has it shrunk below it?"""
        return replica < self.pools[self.index[pool]].replicas

    def put(self, spec: PoolSpec) -> None:
        """A pool joins, comes back or changes."""
        index = self.index.get(spec.name)
        if index is None:
            self.index[spec.name] = len(self.pools)
            self.pools = (*self.pools, spec)
            # A new array, never a longer one: views share it.
            self.bid_usd_per_hour = self.bid_usd_per_hour + array("d", [spec.usd_per_hour])
        else:
            self.pools = (*self.pools[:index], spec, *self.pools[index + 1 :])
            self.bid_usd_per_hour[index] = spec.usd_per_hour
        # A new array, never a changed one: views share it.
        self.rents = [one.usd_per_hour for one in self.pools]
        self.rent_usd_per_hour = np.array(self.rents)
        self._leaving.discard(spec.name)
        self._changed()

    def remove(self, pool: str) -> None:
        """A pool leaves. Its place stays: attempts that run there are known by it."""
        self._leaving.add(pool)
        self._changed()

    def _changed(self) -> None:
        self.staying = tuple(one for one in self.pools if one.name not in self._leaving)
        self.arrays.clear()

    def curves(self, model: str, allowed: tuple[str, ...]) -> LlmArrays | ToolArrays:
        """Curves of all pools; those that the step may not go to, or that leave, serve nothing.

        Args:
            model: The model that is asked for; `NO_MODEL` for a tool.
            allowed: Names of the pools that the step may go to; empty for all.
        """
        arrays = self.arrays.get((model, allowed))
        if arrays is None:
            if len(self.arrays) >= _MAX_ARRAYS:
                self.arrays.clear()
            names = {one.name for one in self.pools} - self._leaving
            names &= set(allowed) or names
            arrays = (
                tool_arrays(self.pools, names)
                if model == NO_MODEL
                else llm_arrays(self.pools, model, names)
            )
            self.arrays[(model, allowed)] = arrays
        return arrays

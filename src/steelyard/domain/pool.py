"""Pools: N equal replicas of one offering, and the curves that describe their speed."""

from typing import Literal

import msgspec

from steelyard.domain.offering import Arch, TokenPrice

KvTokensSource = Literal["", "given", "engine", "derived"]


class LlmCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Speed of one replica serving one model.

    `itl(c) = itl_base_s + itl_slope_s * c` for c streams at once fits measured serving curves to
    4-5 %. It is decode alone: what the prefill of other streams adds depends on the load, and
    `steelyard.perf.predict.shared_itl_s` adds it (ADR 19). TTFT is not a curve: it is the prefill
    of the uncached prompt, with a queue in front of `concurrency_cap`.

    Attributes:
        ttft_floor_s: Seconds before the first token that do not depend on the prompt.
        prefill_s_per_token: Seconds per uncached prompt token, alone on the replica.
        itl_base_s: The a of itl(c), seconds.
        itl_slope_s: The b of itl(c), seconds per concurrent stream.
        concurrency_cap: Streams that run at once; more wait in the pool's queue.
        context_tokens: Longest prompt plus output that the replica takes.
        predicted: Whether the curve is an estimate; measured otherwise.
        source: Where the figures come from, with the day.
    """

    ttft_floor_s: float
    prefill_s_per_token: float
    itl_base_s: float
    itl_slope_s: float
    concurrency_cap: int
    context_tokens: int
    predicted: bool
    source: str


class ToolCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Speed and room of one replica running tool steps.

    Attributes:
        relative_speed: CPU speed of one core relative to the reference core (ADR 0004).
        cores: Cores of the replica.
        memory_bytes: Memory of the replica.
        start_s: Seconds to start a tool on a warm worker.
        slots: Tools that run at once; more wait in the pool's queue.
        predicted: Whether the curve is an estimate; measured otherwise.
        source: Where the figures come from, with the day.
    """

    relative_speed: float
    cores: float
    memory_bytes: int
    start_s: float
    slots: int
    predicted: bool
    source: str


class PoolLimit(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps of one pool may happen at once, over all processes of the store.

    Attributes:
        max_running: Steps at once; None without a limit.
        starts: Steps that may start in `per_s` seconds; None without a limit.
        per_s: See `starts`.
    """

    max_running: int | None = None
    starts: int | None = None
    per_s: float = 1.0


class SpendCap(msgspec.Struct, frozen=True, kw_only=True):
    """How much the steps of all pools of one provider may cost, settled and reserved together.

    Spans of time begin with the UTC hour and the UTC day. What counts is what steps cost, at the
    token price or for their part of the rent: rent of machines that idle is none of it.

    Attributes:
        usd_per_hour: In one hour; None without a cap.
        usd_per_day: In one day; None without a cap.
    """

    usd_per_hour: float | None = None
    usd_per_day: float | None = None


# Tools whose name starts so belong to the pool that the name goes on with.
OWN_POOL_PREFIX = "mcp:"


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy must know of a pool. Complete: a log of events needs no other file.

    Attributes:
        name: Unique name.
        provider: Who sells the hardware.
        region: Where it stands.
        arch: Instruction set of its CPU.
        hardware: `gpu`, `arm`, `x86` or `vendor`: the class in which results are compared.
        offering: Name of the offering its price is taken from.
        usd_per_hour: Price of one replica (a share of a machine, where it is one).
        replicas: Number of replicas.
        token_price: Set where a vendor is paid per token; `usd_per_hour` is then 0.
        llm_curves: Model name to speed; empty in a pool without models.
        tool_curve: Set in a pool that runs tools.
        kv_tokens: Tokens that the key-value memory of one replica holds, streams and prefix cache
            together; None where nobody knows.
        kv_tokens_source: Who says so: `given` in the settings, `engine` at its start, or `derived`
            from the sizes of model and memory; empty where nobody does, or in an older log.
        tool_prefix: What the names of its tools start with, where it runs no others; empty in a
            pool that runs every tool of no pool of its own (`mcp:...`).
        spend_cap: What its provider may cost, all its pools together; None without a cap.
    """

    name: str
    provider: str
    region: str
    arch: Arch
    hardware: Literal["gpu", "arm", "x86", "vendor"]
    offering: str
    usd_per_hour: float
    replicas: int
    token_price: TokenPrice | None = None
    llm_curves: dict[str, LlmCurve] = {}
    tool_curve: ToolCurve | None = None
    kv_tokens: int | None = None
    kv_tokens_source: KvTokensSource = ""
    tool_prefix: str = ""
    spend_cap: SpendCap | None = None

    def runs_tool(self, tool: str) -> bool:
        """Does the pool run the tool of this name?"""
        if self.tool_curve is None:
            return False
        if self.tool_prefix:
            return tool.startswith(self.tool_prefix)
        return not tool.startswith(OWN_POOL_PREFIX)

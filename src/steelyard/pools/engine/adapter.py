"""What an inference library must offer to run in an engine child: made for two of them.

An adapter is used from one thread, blocks while it computes, and knows nothing of requests, JSON
frames or OpenAI. It handles single sequences; the loop above builds `n` answers from them.
"""

from typing import Literal, Protocol

import msgspec


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine child runs; the defaults are measured (docs/adr/0006, 2026-11-22).

    Attributes:
        task: Whether the child generates text or turns texts into vectors.
        adapter: Which library computes.
        model: Name under which the model is served.
        core: CPU core to stay on; None leaves it to the operating system.
        threads: Threads of the library. One, with a process per core, is several times more
            robust than two threads for small models: neighbours stall the barrier.
        max_batched_tokens: Tokens per step; bounds how long a cancel waits.
        max_streams: Sequences that run at once.
        cache_bytes: Size of the KV cache.
        default_max_string_chars: Bound for JSON strings whose schema has none: unbounded ones run
            away in small models, and the cost of compiling a bound grows with it.
        warm_first_tokens: A request waits while another one computes at least this many tokens
            that they share; 0 turns the gate off.
    """

    task: Literal["generate", "embeddings"] = "generate"
    adapter: Literal["openvino"] = "openvino"
    model: str = "smollm2-135m-instruct"
    core: int | None = None
    threads: int = 1
    max_batched_tokens: int = 256
    max_streams: int = 32
    cache_bytes: int = 1024 * 1024 * 1024
    default_max_string_chars: int = 96
    warm_first_tokens: int = 128


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen for one sequence; `temperature` 0 takes the likeliest.

    The answer follows `grammar` (EBNF) or `json_schema`, whichever is set; never both are.
    """

    max_output_tokens: int
    temperature: float
    top_p: float
    seed: int
    top_k: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: bool = False
    grammar: str | None = None
    json_schema: str | None = None

    @property
    def is_constrained(self) -> bool:
        """Does the engine have to compile a grammar for it?"""
        return self.grammar is not None or self.json_schema is not None


class EngineDelta(msgspec.Struct, frozen=True):
    """New tokens of one sequence, their log-probabilities, and whether and why it ended."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"] | None


class EngineAdapter(Protocol):
    """An inference library with a model loaded.

    Attributes:
        context_tokens: Longest prompt plus output.
        block_tokens: Granularity in which prompts are cached.
        cache_blocks: Blocks that fit the cache.
    """

    context_tokens: int
    block_tokens: int
    cache_blocks: int

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        """What prompt does the model's own chat template make of the messages?"""
        ...

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text? May stop counting at `context_tokens`, never before."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Which UTF-8 bytes does the token stand for? Empty for control tokens."""
        ...

    def add(self, token_ids: list[int], sampling: Sampling) -> int:
        """Queue a sequence and return its handle."""
        ...

    def step(self) -> None:
        """Compute one batch; blocks for as long as that takes."""
        ...

    def read(self, handle: int) -> EngineDelta:
        """What is new in the sequence since the last read?"""
        ...

    def cancel(self, handle: int) -> None:
        """Drop the sequence and free its place; harmless when it has ended."""
        ...

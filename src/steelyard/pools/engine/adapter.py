"""What an inference library must offer to run in an engine child: made for two of them.

An adapter is used from one thread, blocks while it computes, and knows nothing of requests, JSON
frames or OpenAI. It handles single sequences; the loop above builds `n` answers from them.
"""

from typing import Literal, Protocol

import msgspec

EngineName = Literal["openvino", "llamacpp"]
# `native` is what the library takes for the processor, such as bfloat16; `int8` a copy of the model
# with 8-bit weights by channel, whose products are of 8-bit integers.
Precision = Literal["native", "f32", "int8"]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine child runs; the defaults are measured (docs/adr/0006, 2026-11-22).

    Attributes:
        task: Whether the child generates text or turns texts into vectors.
        adapter: Which library computes.
        precision: In which numbers the library computes; the adapter of llama.cpp has one way.
        cache_folder: Where a copy for `int8` is kept; empty makes one at each load.
        model: Name under which the model is served.
        core: CPU core to stay on; None leaves it to the operating system.
        threads: Threads of the library. One, with a process per core, is several times more
            robust than two threads for small models: neighbours stall the barrier.
        max_batched_tokens: Tokens per step; bounds how long a cancel waits. None takes what suits
            the library.
        max_streams: Sequences that run at once.
        cache_bytes: Size of the KV cache.
        default_max_string_chars: Bound for JSON strings whose schema has none: unbounded ones run
            away in small models, and the cost of compiling a bound grows with it.
        warm_first_tokens: A request waits while another one computes at least this many tokens
            that they share; 0 turns the gate off.
    """

    task: Literal["generate", "embeddings"] = "generate"
    adapter: EngineName = "openvino"
    precision: Precision = "native"
    cache_folder: str = ""
    model: str = "smollm2-135m-instruct"
    core: int | None = None
    threads: int = 1
    max_batched_tokens: int | None = None
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


class EngineDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What is new in one sequence.

    Attributes:
        output_tokens: How many tokens it got.
        token_ids: Which they are, as far as the library tells: one that withholds half a character
            names the token that completes it alone.
        pieces: Their UTF-8 bytes, one entry for each of `token_ids`; empty for control tokens.
        logprobs: One for each of `pieces`; empty where none are asked for.
        finish: Why the sequence ended; None while it goes on.
        cached_tokens: Prompt tokens that were not computed; None from a library that does not say.
        refused: Why the library does not compute the sequence; then it has ended.
    """

    output_tokens: int = 0
    token_ids: tuple[int, ...] = ()
    pieces: tuple[bytes, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Literal["stop", "length"] | None = None
    cached_tokens: int | None = None
    refused: str = ""


class EngineAdapter(Protocol):
    """An inference library with a model loaded.

    Attributes:
        context_tokens: Longest prompt plus output.
        block_tokens: Granularity in which prompts are cached.
        cache_blocks: Blocks that fit the cache.
        max_streams: Sequences that it computes at once.
    """

    context_tokens: int
    block_tokens: int
    cache_blocks: int
    max_streams: int

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        """What prompt does the model's own chat template make of the messages?"""
        ...

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text? May stop counting at `context_tokens`, never before."""
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

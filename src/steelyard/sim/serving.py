"""How the engines of a simulated pool serve, beside their curve."""

import msgspec

from steelyard.errors import ConfigError


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine does with long prompts and with its memory.

    Attributes:
        prefill_chunk_tokens: Tokens that one pass over the model computes at most, decodes
            included: a longer prompt is cut, and each chunk is computed together with one token of
            every decode. None computes prompts whole. vLLM's server takes 8,192 on GPUs of 70 GiB
            and more other than the A100, and 2,048 on others (`max_num_batched_tokens`,
            `EngineArgs.get_batch_defaults` in vllm/engine/arg_utils.py, read 2026-11-23).
        kv_tokens: Tokens that the key-value memory of one replica holds. What runs has its whole
            context reserved; the rest holds prefixes, the least recently used ones evicted first.
            None bounds streams by the concurrency cap alone, and forgets no prefix.
        cache_block_tokens: Size of the blocks in which prefixes are kept: of what a prompt shares
            with an earlier one, whole blocks alone are found, and the last token of an answer was
            never computed. vLLM takes 16 tokens, OpenVINO GenAI 32 on CPUs. 1 finds every token.
        floor_stalls: Whether the floor of a first token is work of the replica, which stalls its
            decodes as the rest of the prefill does. So it is in an embedded engine, where the floor
            is a pass over all weights in which each decode gets one token: a gap's time of it is
            counted as the first gap, not twice. A prompt waits for the pass that has begun: half a
            gap on average, while others decode. Thin: `start_to_first_token_s` is told a gap too
            short by it; ends are right. Behind HTTP, the floor is mostly the way there and back.
        tells_cached: Whether it reports how much of a prompt it found in its cache.
    """

    prefill_chunk_tokens: int | None = None
    kv_tokens: int | None = None
    cache_block_tokens: int = 1
    floor_stalls: bool = False
    tells_cached: bool = True

    def found_tokens(self, shared_tokens: int) -> int:
        """How much of what a prompt shares with an earlier one is found in whole blocks?

        >>> Serving(cache_block_tokens=32).found_tokens(96), Serving().found_tokens(96)
        (64, 96)
        """
        if self.cache_block_tokens == 1:
            return shared_tokens
        return max(0, shared_tokens - 1) // self.cache_block_tokens * self.cache_block_tokens

    def check(self, pool: str) -> None:
        """Refuse what no engine could do.

        Args:
            pool: Name of the pool, for the message.

        Raises:
            ConfigError: A number of tokens below one.
        """
        for key in self.__struct_fields__:
            tokens = getattr(self, key)
            if key.endswith("_tokens") and tokens is not None and tokens < 1:
                raise ConfigError(f"serving of {pool}: {key} is {tokens}; it must be at least 1")


WHOLE_PROMPTS = Serving()
"""Prompts in one piece, memory without end."""

"""OpenVINO GenAI behind the adapter interface: continuous batching, reads the GGUF itself."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from steelyard.errors import MissingExtraError
from steelyard.pools.engine.adapter import EngineDelta, EngineSettings, Sampling
from steelyard.pools.engine.model import ModelFile, read_header
from steelyard.pools.engine.per_channel import PerChannelCopy, load
from steelyard.pools.engine.requantized import write_without_q4_1

_BATCHED_TOKENS = 256
# Blocks of the CPU plugin's paged attention hold 32 tokens.
_BLOCK_TOKENS = 32
# A scale and a zero point.
_SCALE_BYTES = 8
_GIB_BYTES = 1024 * 1024 * 1024
_FINISH: Mapping[str, Literal["stop", "length"]] = MappingProxyType(
    {"STOP": "stop", "LENGTH": "length"}
)


def blocks_per_gib(model: ModelFile) -> int:
    """How many blocks of keys and values does the library keep in a GiB?

    Keys and values are 8-bit integers; keys have a scale and a zero point of 4 bytes each per
    channel of a block, values per token: `kv_heads * (2 * head_width * block + 8 * (head_width +
    block))` bytes per block. It gives the 2,452 blocks per GiB that the library reports of
    SmolLM2-135M (OpenVINO GenAI 2026.4.1 on x86_64, 2026-11-22); of other models it is an estimate.

    Args:
        model: Its header; one that does not tell the shape is taken for SmolLM2-135M's.

    Returns:
        Blocks of 32 tokens.
    """
    heads, width = (model.kv_heads, model.head_width) if model.kv_heads else (30 * 3, 64)
    return _GIB_BYTES // (
        heads * (2 * width * _BLOCK_TOKENS + _SCALE_BYTES * (width + _BLOCK_TOKENS))
    )


class OpenVinoAdapter:
    """A ContinuousBatchingPipeline on the CPU.

    Args:
        model_path: A GGUF file.
        settings: How to run it.
        context_tokens: Longest prompt plus output; the library itself checks no limit.

    Raises:
        MissingExtraError: openvino-genai is not installed.
        ConfigError: An 8-bit copy is asked for, and loses too much.
    """

    def __init__(self, model_path: Path, settings: EngineSettings, context_tokens: int) -> None:
        try:
            import openvino  # noqa: PLC0415 - an optional extra, and slow to import
            import openvino_genai  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtraError(
                f"The embedded engine needs openvino-genai, and importing it failed: {error}. "
                "Install it: pip install 'steelyard[engine]'."
            ) from error
        self._genai: Any = openvino_genai
        self._tensor: Any = openvino.Tensor
        scheduler: Any = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = settings.max_batched_tokens or _BATCHED_TOKENS
        scheduler.max_num_seqs = settings.max_streams
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = max(1, round(settings.cache_bytes / _GIB_BYTES))
        with tempfile.TemporaryDirectory() as folder:
            # The library is done with the files, or has mapped them, when it has built its graph.
            self._pipeline: Any = self._load(model_path, Path(folder), scheduler, settings)
        self._tokenizer: Any = self._pipeline.get_tokenizer()
        # Keys are the tokens' raw bytes, so texts can be put together exactly.
        vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        self._bytes_of = {token_id: text for text, token_id in vocabulary.items()}
        self._control = self._control_tokens()
        self._eos_token_id: int = self._tokenizer.get_eos_token_id()
        self._handles: dict[int, Any] = {}
        self._next_handle = 0
        self.context_tokens = context_tokens
        self.block_tokens = _BLOCK_TOKENS
        self.max_streams = settings.max_streams
        gib = max(1, round(settings.cache_bytes / _GIB_BYTES))
        self.cache_blocks = gib * blocks_per_gib(read_header(model_path))

    def _load(
        self,
        model_path: Path,
        folder: Path,
        scheduler: Any,  # noqa: ANN401 - the library has no types
        settings: EngineSettings,
    ) -> Any:  # noqa: ANN401
        if settings.precision == "int8":
            cache = Path(settings.cache_folder) if settings.cache_folder else folder
            return load(PerChannelCopy(model_path, cache), scheduler, settings.threads)
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": settings.threads}
        if settings.precision == "f32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
        copy = folder / "model.gguf"
        read = copy if write_without_q4_1(model_path, copy) else model_path
        return self._genai.ContinuousBatchingPipeline(str(read), scheduler, "CPU", options)

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        """What prompt does the model's own chat template make of the messages?"""
        prompt: str = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return prompt

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text?"""
        token_ids: list[int] = self._tokenizer.encode(text).input_ids.data.tolist()[0]
        return token_ids

    def _piece(self, token_id: int) -> bytes:
        return b"" if token_id in self._control else self._bytes_of.get(token_id, b"")

    def _control_tokens(self) -> frozenset[int]:
        # The library does not list its control tokens: they are those that decode to nothing.
        marked = [
            token_id
            for token_id, text in self._bytes_of.items()
            if text.startswith(b"<") and text.endswith(b">") and len(text) > 2
        ]
        return frozenset(i for i in marked if self._tokenizer.decode([i]) == "")

    def add(self, token_ids: list[int], sampling: Sampling) -> int:
        """Queue a sequence and return its handle."""
        import numpy as np  # noqa: PLC0415 - keeps the module free of it without the extra

        handle = self._next_handle
        self._next_handle += 1
        tensor = self._tensor(np.array([token_ids], dtype=np.int64))
        self._handles[handle] = self._pipeline.add_request(handle, tensor, self._config(sampling))
        return handle

    def _config(self, sampling: Sampling) -> Any:  # noqa: ANN401 - the library has no types
        config = self._genai.GenerationConfig()
        config.max_new_tokens = sampling.max_output_tokens
        config.set_eos_token_id(self._eos_token_id)
        config.stop_token_ids = {self._eos_token_id}
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.repetition_penalty = sampling.repetition_penalty
        config.logprobs = 1 if sampling.logprobs else 0
        if sampling.temperature > 0:
            config.do_sample = True
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = sampling.seed
            if sampling.top_k is not None:
                config.top_k = sampling.top_k
        if sampling.grammar is not None:
            config.structured_output_config = self._genai.StructuredOutputConfig(
                grammar=sampling.grammar
            )
        elif sampling.json_schema is not None:
            config.structured_output_config = self._genai.StructuredOutputConfig(
                json_schema=sampling.json_schema
            )
        config.validate()
        return config

    def step(self) -> None:
        """Compute one batch; blocks for as long as that takes."""
        self._pipeline.step()

    def read(self, handle: int) -> EngineDelta:
        """What is new in the sequence since the last read?"""
        generation = self._handles[handle]
        token_ids: list[int] = []
        logprobs: list[float] = []
        finish: Literal["stop", "length"] | None = None
        while generation.can_read():
            for output in generation.read().values():
                token_ids.extend(output.generated_ids)
                logprobs.extend(output.generated_log_probs)
                finish = _FINISH.get(output.finish_reason.name)
        if finish is not None:
            del self._handles[handle]
        return EngineDelta(
            output_tokens=len(token_ids),
            token_ids=tuple(token_ids),
            pieces=tuple([self._piece(token_id) for token_id in token_ids]),
            logprobs=tuple(logprobs),
            finish=finish,
        )

    def cancel(self, handle: int) -> None:
        """Drop the sequence and free its place; harmless when it has ended."""
        generation = self._handles.pop(handle, None)
        if generation is not None:
            generation.cancel()

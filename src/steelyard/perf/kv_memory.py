"""How many tokens of context fit a machine's memory? From a model's shape, where nobody measured.

An engine tells the true number at its start, which counts before anything derived here.
"""

import math

from steelyard.errors import FigureError

# Share of a GPU's memory that vLLM takes by default (`--gpu-memory-utilization`, docs.vllm.ai,
# engine arguments, read 2026-11-23).
VLLM_MEMORY_FRAC = 0.9


def kv_bytes_per_token(
    layers: int, kv_heads: int, head_width: int, bytes_per_value: float = 2.0
) -> float:
    """How many bytes do the keys and values of one token take?

    `2 * layers * kv_heads * head_width * bytes_per_value`: a key and a value per layer and head
    (Kwon et al., Efficient memory management for large language model serving with
    PagedAttention, SOSP 2023, section 3: 2 * 5120 * 40 * 2 bytes for OPT-13B). Layers that look
    back over a window only are counted as if they kept everything.

    Args:
        layers: Layers with attention.
        kv_heads: Heads of keys and values per layer; fewer than heads of queries in grouped-query
            attention.
        head_width: Values per head.
        bytes_per_value: 2 for 16-bit floats.

    Returns:
        Bytes per token.

    >>> kv_bytes_per_token(layers=40, kv_heads=40, head_width=128)
    819200.0
    """
    return 2.0 * layers * kv_heads * head_width * bytes_per_value


def derived_kv_tokens(
    memory_bytes: float,
    weight_bytes: float,
    bytes_per_token: float,
    usable_frac: float = VLLM_MEMORY_FRAC,
) -> int:
    """How many tokens of keys and values fit beside the weights? An estimate.

    `(usable_frac * memory_bytes - weight_bytes) / bytes_per_token`, as vLLM sizes its cache
    (Kwon et al., SOSP 2023, section 4). Thin: what activations take, some GB at most, is not taken
    off, so that an engine tells a few per cent less.

    Args:
        memory_bytes: Memory of the accelerator.
        weight_bytes: The model's weights.
        bytes_per_token: `kv_bytes_per_token` of the model.
        usable_frac: Share of the memory that the engine takes.

    Returns:
        Tokens; 0 where the weights do not fit.

    Raises:
        FigureError: A size makes no sense.

    >>> derived_kv_tokens(80e9, 16e9, 131072.0)
    427246
    """
    if not (bytes_per_token > 0.0 and math.isfinite(bytes_per_token)):
        raise FigureError(
            f"bytes_per_token {bytes_per_token:g} must be finite and above zero; read the shape of"
            " the model from its card"
        )
    return max(0, math.floor((usable_frac * memory_bytes - weight_bytes) / bytes_per_token))

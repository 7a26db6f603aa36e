"""How many tokens of context does an offering of the catalogue hold? Derived, never measured."""

import msgspec

from steelyard.config.predicted_fits import GPUS, SIZES
from steelyard.domain.offering import Offering
from steelyard.domain.units import BYTES_PER_GIB
from steelyard.perf.kv_memory import VLLM_MEMORY_FRAC, derived_kv_tokens, kv_bytes_per_token


class KvMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Key-value memory of one machine that serves one model.

    Attributes:
        tokens: Tokens that it holds.
        source: What that is derived from.
    """

    tokens: int
    source: str


def catalog_kv_memory(offering: Offering, model: str) -> KvMemory | None:
    """How many tokens do the caches of an engine on this machine hold, beside the model?

    Derived by `steelyard.perf.kv_memory` from the maker's data sheet and the model's card, as vLLM
    sizes its cache. Thin: machines of one GPU only, as it is not said how an engine spreads over
    several; and no CPUs, as what an engine takes of main memory is its operator's choice.

    Args:
        offering: The machine.
        model: Canonical model name.

    Returns:
        The memory; None where the GPU or the shape of the model is not known, or it does not fit.
    """
    machine, size = offering.instance_type, SIZES.get(model)
    gpu = GPUS.get(machine.accelerator)
    if size is None or gpu is None or machine.accelerator_count != 1:
        return None
    token_bytes = kv_bytes_per_token(size.layers, size.kv_heads, size.head_width)
    memory_bytes = gpu.memory_gib * BYTES_PER_GIB
    tokens = derived_kv_tokens(memory_bytes, size.weight_bytes, token_bytes)
    if tokens < 1:
        return None
    source = (
        f"derived: {VLLM_MEMORY_FRAC:g} of {gpu.memory_gib:g} GiB of {machine.accelerator} (its "
        f"maker's data sheet) less {size.weight_bytes / 1e9:.3g} GB of weights, at "
        f"{token_bytes:.0f} bytes of 16-bit keys and values per token (the model's card)"
    )
    return KvMemory(tokens=tokens, source=source)

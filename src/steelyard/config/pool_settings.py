"""Settings of pools, `[pools.NAME]`: one struct per kind."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import msgspec

from steelyard.config.choices import EngineChoice, PrecisionChoice, SandboxChoice
from steelyard.config.ray_settings import RayPoolSettings, anchored_ray, check_ray
from steelyard.domain.offering import Arch
from steelyard.errors import ConfigError

EngineTask = Literal["generate", "embeddings"]
EndpointEngine = Literal["", "openai", "vllm", "sglang", "llama.cpp", "ollama", "mistral"]
EndpointApi = Literal["responses", "rerank"]


class CurveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Speed of one replica of an endpoint, until it has been measured.

    The defaults are a cautious guess for a hosted model; predictions are corrected by what is
    measured while the pool works.

    Attributes:
        ttft_floor_s: Seconds before the first token that do not depend on the prompt.
        prefill_s_per_token: Seconds per uncached prompt token.
        itl_base_s: Seconds per output token, alone on the replica.
        itl_slope_s: Further seconds per output token and concurrent stream.
        concurrency_cap: Streams at once.
        context_tokens: Longest prompt plus output.
    """

    ttft_floor_s: float = 0.3
    prefill_s_per_token: float = 0.0001
    itl_base_s: float = 0.02
    itl_slope_s: float = 0.0005
    concurrency_cap: int = 32
    context_tokens: int = 32768


class TokenPriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A vendor's price list, in USD per million tokens.

    Attributes:
        input_usd_per_million: Prompt tokens.
        cached_usd_per_million: Prompt tokens read from the vendor's cache; as input when left out.
        output_usd_per_million: Generated tokens.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    cached_usd_per_million: float | None = None


_PACKAGED_MODELS: Mapping[EngineTask, str] = MappingProxyType(
    {"generate": "smollm2-135m", "embeddings": "all-minilm-l6-v2"}
)


class EmbeddedPoolSettings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="embedded",
    tag_field="kind",
):
    """A pool of embedded engines on this machine, one process and core per replica.

    Attributes:
        task: What the engines do: generate text, or turn texts into vectors.
        engine: Library that generates text; `auto` takes what is installed, and of both the one
            that a measurement of a few seconds finds faster on this machine.
        precision: Numbers that openvino computes in: `native` what it takes for the processor,
            such as bfloat16; `int8` integers of 8 bits, in a copy that is made of the model and
            refused if it predicts texts worse; `auto` the fastest, measured like the engine.
        replicas: Number of engine processes.
        model_path: GGUF file, or for embeddings the folder of a BERT model in the form of
            sentence-transformers; None takes the packaged SmolLM2-135M-Instruct or
            all-MiniLM-L6-v2.
        model: Name under which clients ask for it; without it, the packaged model's.
        concurrency_cap: Streams at once per replica.
        offering: Catalogue name of the machine that this one is priced as; None takes a common
            machine of the same architecture.
        machine_frac: Share of that machine's price that one replica pays; None takes one core's.
        figures: File that `steelyard measure` wrote of one replica; it replaces the calibration
            at start-up.
    """

    task: EngineTask = "generate"
    engine: EngineChoice = "auto"
    precision: PrecisionChoice = "auto"
    replicas: int = 1
    model_path: Path | None = None
    model: str = ""
    concurrency_cap: int = 16
    offering: str | None = None
    machine_frac: float | None = None
    figures: Path | None = None

    def __post_init__(self) -> None:
        """Name the packaged model."""
        if not self.model:
            msgspec.structs.force_setattr(self, "model", _PACKAGED_MODELS[self.task])


class ToolPoolSettings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="tools",
    tag_field="kind",
):
    """A pool of tool workers on this machine.

    Attributes:
        slots: Tools at once.
        cores: Cores that the pool pays for; in a sandbox also what one tool may use.
        offering: Catalogue name of the machine that this one is priced as; None takes a common
            machine of the same architecture.
        sandbox: What confines tools. `auto` takes the first of `bubblewrap` and `landlock` that
            works on this machine and refuses to start where none does; `off` gives tools all
            rights of this user.
        python_paths: Folders with the tools' modules; in a sandbox tools read them and see no
            other folder of this machine.
        memory_bytes: Memory of one call and its children, in a sandbox.
        processes: Processes of one call, in a sandbox.
        folder_bytes: Size of a call's private folder, in a sandbox.
    """

    slots: int = 2
    cores: float = 1.0
    offering: str | None = None
    sandbox: SandboxChoice = "auto"
    python_paths: tuple[Path, ...] = ()
    memory_bytes: int = 2048 * 1024 * 1024
    processes: int = 64
    folder_bytes: int = 256 * 1024 * 1024


class EndpointPoolSettings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="endpoint",
    tag_field="kind",
):
    """A pool behind any OpenAI-compatible endpoint: vLLM, SGLang, a vendor.

    It is paid per hour (`offering`, or `usd_per_hour`) or per token (`token_price`).

    Attributes:
        base_urls: Address of each replica, up to and including `/v1`.
        models: Models it serves.
        api_key_env: Name of the environment variable that holds the key.
        engine: Whose words it reads: fields that engines name differently are renamed. Empty hands
            requests on as they are.
        apis: What it offers beside chat, completions and embeddings.
        provider: Who is paid.
        region: Where it stands.
        arch: Architecture of its CPUs.
        offering: Catalogue name of the machine it runs on.
        usd_per_hour: Price of one replica-hour; overrides the catalogue's.
        token_price: Price list of a vendor.
        kv_tokens: Tokens that the key-value memory of one replica holds (vLLM tells it at its start
            as "GPU KV cache size"); left out, its memory is taken to have no end.
        curve: Speed of one replica.
        figures: File that `steelyard measure` wrote of one replica; it replaces `curve` for its
            model.
    """

    base_urls: tuple[str, ...]
    models: tuple[str, ...]
    api_key_env: str | None = None
    engine: EndpointEngine = ""
    apis: tuple[EndpointApi, ...] = ()
    provider: str = "custom"
    region: str = ""
    arch: Arch = "x86_64"
    offering: str | None = None
    usd_per_hour: float | None = None
    token_price: TokenPriceSettings | None = None
    kv_tokens: int | None = None
    curve: CurveSettings = CurveSettings()
    figures: Path | None = None


class McpPoolSettings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag="mcp",
    tag_field="kind",
):
    """A pool of the tools of one MCP server, named `mcp:POOL/TOOL`.

    Attributes:
        command: Program and arguments of a server on this machine, which speaks over its standard
            input and output.
        url: Address of a server that speaks streamable HTTP, instead of `command`.
        api_key_env: Name of the environment variable whose value goes to `url` as bearer token.
        tools: Tools that may be called; empty for all that the server offers.
        timeout_s: Longest call in seconds.
        slots: Calls at once.
        cores: Cores that a server on this machine pays for and may use.
        offering: As in a pool of tools, for a server on this machine.
        sandbox: As in a pool of tools; in a sandbox the server has no network.
        readable: Files and folders that a confined server sees, besides Python and the system's
            libraries.
        memory_bytes: Memory of the server and its children, in a sandbox.
        processes: Processes and threads of the server, in a sandbox.
        folder_bytes: Size of the server's private folder, in a sandbox.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    api_key_env: str | None = None
    tools: tuple[str, ...] = ()
    timeout_s: float = 60.0
    slots: int = 4
    cores: float = 1.0
    offering: str | None = None
    sandbox: SandboxChoice = "auto"
    readable: tuple[Path, ...] = ()
    memory_bytes: int = 2048 * 1024 * 1024
    processes: int = 64
    folder_bytes: int = 256 * 1024 * 1024


PoolSettings = (
    EmbeddedPoolSettings
    | ToolPoolSettings
    | McpPoolSettings
    | EndpointPoolSettings
    | RayPoolSettings
)
POOL_KINDS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(PoolSettings)
}


def check_pool(where: str, pool: PoolSettings) -> None:
    """Refuse values of a pool that make no sense.

    Args:
        where: Place of the pool in its file, for the message.
        pool: Its settings.

    Raises:
        ConfigError: A value is wrong, or one is missing.
    """
    counts: dict[str, float | None] = {}
    if isinstance(pool, RayPoolSettings):
        check_ray(where, pool)
    elif isinstance(pool, EmbeddedPoolSettings):
        if pool.task == "embeddings" and pool.engine == "llamacpp":
            raise ConfigError(f"{where}.engine is 'llamacpp'; embeddings are made with openvino")
        counts = {
            "replicas": pool.replicas,
            "concurrency_cap": pool.concurrency_cap,
            "machine_frac": pool.machine_frac,
        }
    elif isinstance(pool, ToolPoolSettings | McpPoolSettings):
        if isinstance(pool, McpPoolSettings):
            _check_server(where, pool)
            counts["timeout_s"] = pool.timeout_s
        counts |= {
            "slots": pool.slots,
            "cores": pool.cores,
            "memory_bytes": pool.memory_bytes,
            "processes": pool.processes,
            "folder_bytes": pool.folder_bytes,
        }
    else:
        counts = {
            "kv_tokens": pool.kv_tokens,
            "curve.concurrency_cap": pool.curve.concurrency_cap,
            "curve.context_tokens": pool.curve.context_tokens,
        }
        _check_endpoint(where, pool)
    for key, value in counts.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{where}.{key} is {value}; it must be greater than 0")


def _check_server(where: str, pool: McpPoolSettings) -> None:
    if bool(pool.command) == bool(pool.url):
        raise ConfigError(f"{where} needs either command or url, and not both")
    if pool.url and not pool.url.startswith(("http://", "https://")):
        raise ConfigError(f"{where}.url is {pool.url!r}; it must start with http:// or https://")


def _check_endpoint(where: str, pool: EndpointPoolSettings) -> None:
    if not pool.base_urls:
        raise ConfigError(f"{where}.base_urls is empty; give the address of each replica")
    for url in pool.base_urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{where}.base_urls holds {url!r}; it must start with http:// or https://"
            )
    if not pool.models:
        raise ConfigError(f"{where}.models is empty; name the models that the endpoint serves")
    if pool.token_price is None and pool.usd_per_hour is None and pool.offering is None:
        raise ConfigError(f"{where} has no price; give offering, usd_per_hour or token_price")
    if pool.token_price is not None and (pool.usd_per_hour or pool.offering):
        raise ConfigError(
            f"{where} has two prices; give token_price, or one of offering and usd_per_hour"
        )


def anchored_pool(pool: PoolSettings, folder: Path) -> PoolSettings:
    """A pool with its relative paths taken from a folder.

    Args:
        pool: Its settings.
        folder: The configuration's folder.
    """
    if isinstance(pool, ToolPoolSettings):
        paths = tuple(folder / path for path in pool.python_paths)
        return msgspec.structs.replace(pool, python_paths=paths)
    if isinstance(pool, RayPoolSettings):
        return anchored_ray(pool, folder)
    if isinstance(pool, McpPoolSettings):
        paths = tuple(folder / path for path in pool.readable)
        return msgspec.structs.replace(pool, readable=paths)
    own = pool if pool.figures is None else _with_figures(pool, folder / pool.figures)
    if isinstance(own, EmbeddedPoolSettings) and own.model_path is not None:
        own = msgspec.structs.replace(own, model_path=folder / own.model_path)
    return own


def _with_figures(
    pool: EmbeddedPoolSettings | EndpointPoolSettings, figures: Path
) -> EmbeddedPoolSettings | EndpointPoolSettings:
    return msgspec.structs.replace(pool, figures=figures)

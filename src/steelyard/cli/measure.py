"""`steelyard measure`: profile a live pool and write figures that pools and plans take."""

import asyncio
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console

from steelyard.cli.outputs import check_file
from steelyard.cli.progress import Stages
from steelyard.config.catalog_table import load_catalog
from steelyard.config.choices import EngineChoice, PrecisionChoice
from steelyard.config.environment import (
    cache_folder,
    machine_description,
    processor_description,
    secret,
)
from steelyard.config.figures_file import FiguresFile, write_figures
from steelyard.config.unknown_keys import nearest
from steelyard.errors import ConfigError
from steelyard.pools.backend import LlmBackend
from steelyard.report.catalog_grids import figures_grid
from steelyard.report.tables import print_grid
from steelyard.runtime.measured_figures import MeasuredPool, measured_figures
from steelyard.runtime.profiling import ProfilePlan, profile

LOCAL_MODEL = "smollm2-135m"


class MeasureRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for.

    Attributes:
        target: A base URL up to `/v1`, or `local`.
        model: The endpoint's name of the model; empty takes its only one.
        plan_model: The name that plans use; empty takes `model`.
        api_key_env: Environment variable with the key; empty for none.
        offering: Catalogue name of the machine that the target has to itself; empty: unknown.
        engine: Engine and version behind an endpoint; empty: unknown. For `local`, the library.
        precision: In which numbers it computes; `local` only.
        context_tokens: Longest context of the model; 0: as long as measured.
        replicas: Engine processes measured together; `local` only.
        out: Where the figures go.
        as_json: Whether to print JSON instead of a table.
    """

    target: str
    model: str = ""
    plan_model: str = ""
    api_key_env: str = ""
    offering: str = ""
    engine: str = ""
    precision: PrecisionChoice = "auto"
    context_tokens: int = 0
    replicas: int = 1
    out: Path
    as_json: bool = False


def run_measure(asked: MeasureRequest, plan: ProfilePlan) -> None:
    """Measure, write and print.

    Args:
        asked: What the command line asks for.
        plan: What is measured.

    Raises:
        SteelyardError: The target cannot be measured, or too little was.
    """
    check_file("--out", asked.out)
    offering = load_catalog().offering(asked.offering).name if asked.offering else ""
    asked = msgspec.structs.replace(asked, offering=offering)
    figures = asyncio.run(_measure(asked, plan))
    write_figures(asked.out, figures)
    if asked.as_json:
        print(msgspec.json.encode(figures).decode())
        return
    print_grid(figures_grid(figures), Console(file=sys.stdout))
    print(f"written to {asked.out}")


async def _measure(asked: MeasureRequest, plan: ProfilePlan) -> FiguresFile:
    # What was profiled before, by this command too, has its prompts in its cache.
    plan = msgspec.structs.replace(plan, mark=secrets.token_hex(3))
    with Stages(plan.repetitions * plan.settings + 1) as stages:
        backend, engine = await _backend(asked)
        await backend.start()
        try:
            model = _model(asked, backend.models())
            requests = await profile(
                backend, model, plan, lambda what, done, total: stages.stage(what)
            )
            context_tokens = asked.context_tokens or _context_tokens(backend)
        finally:
            await backend.close()
    pool = MeasuredPool(
        model=asked.plan_model or model,
        target=asked.target,
        engine=engine,
        machine=machine_description(),
        offering=asked.offering,
        replicas=backend.replicas,
        context_tokens=context_tokens,
        date=datetime.now(UTC).date().isoformat(),
    )
    return measured_figures(pool, plan, requests)


async def _backend(asked: MeasureRequest) -> tuple[LlmBackend, str]:
    """What is measured, and the name of its engine as far as it is known."""
    if asked.target == "local":
        return await _local(asked)
    if not asked.target.startswith(("http://", "https://")):
        raise ConfigError(
            f"measure target {asked.target!r} is neither `local` nor an address that starts with"
            " http:// or https:// and ends with /v1"
        )
    if asked.replicas != 1 or asked.precision != "auto":
        raise ConfigError(
            f"--replicas and --precision are those of `local`, and {asked.target} is a server of"
            " its own; set them there"
        )
    from steelyard.pools.endpoint import OpenAiEndpointPool

    key = secret(asked.api_key_env, "--api-key-env") if asked.api_key_env else ""
    models = [asked.model] if asked.model else []
    return OpenAiEndpointPool([asked.target], models, api_key=key), asked.engine or "unknown"


async def _local(asked: MeasureRequest) -> tuple[LlmBackend, str]:
    from steelyard.pools.engine.adapter import EngineSettings
    from steelyard.pools.engine.choice import choose_engine, engine_version
    from steelyard.pools.engine.model import find_model
    from steelyard.pools.engine.pool import EmbeddedEnginePool

    if asked.model not in {"", LOCAL_MODEL}:
        raise ConfigError(
            f"--model {asked.model[:80]!r} is not what `local` runs, which is {LOCAL_MODEL}; plans"
            " may call it otherwise with --as-model"
        )
    engine = _library(asked.engine)
    memory = cache_folder() / "engines.json"
    chosen = await choose_engine(
        engine, find_model(), processor_description(), memory, asked.precision
    )
    settings = EngineSettings(
        adapter=chosen.engine,
        precision=chosen.precision,
        cache_folder=str(memory.parent),
        model=LOCAL_MODEL,
    )
    backend = EmbeddedEnginePool(replicas=asked.replicas, settings=settings)
    # The precision changes the speed of prefill severalfold: a curve without it says little.
    precision = "" if chosen.precision == "native" else f" in {chosen.precision}"
    return backend, f"{engine_version(chosen.engine)}{precision}"


def _library(asked: str) -> EngineChoice:
    choices: tuple[EngineChoice, ...] = get_args(EngineChoice)
    wanted = asked or "auto"
    if wanted not in choices:
        raise ConfigError(
            f"--engine {asked!r} is no library of the embedded engine; {nearest(asked, [*choices])}"
        )
    return choices[choices.index(wanted)]


def _model(asked: MeasureRequest, served: tuple[str, ...]) -> str:
    if asked.model:
        return asked.model
    if len(served) != 1:
        raise ConfigError(
            f"{asked.target} serves {', '.join(served) or 'no model'}; say which with --model"
        )
    return served[0]


def _context_tokens(backend: LlmBackend) -> int:
    """The engine knows its model's limit; an endpoint does not tell it."""
    known = getattr(backend, "context_tokens", 0)
    return known if isinstance(known, int) else 0

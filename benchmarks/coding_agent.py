"""How often does the coding agent repair a project, and does its model choose better than chance?

Breaks the example's project by a random edit that makes its tests fail, once per seed, and runs the
agent on it with so few tries that it may fail. Chance is what a random order of the same edits
would do, computed from how many of them repair the project.

    .venv/bin/python benchmarks/coding_agent.py --seeds 12
"""

import argparse
import asyncio
import math
import random
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(_EXAMPLES))

from coding_agent import repair, run_tests  # noqa: E402 - found on the path set above
from coding_edits import Edit, apply_edit, single_edits  # noqa: E402

from steelyard.config.catalog_table import load_catalog  # noqa: E402
from steelyard.config.settings import (  # noqa: E402
    EmbeddedPoolSettings,
    Settings,
    ToolPoolSettings,
)
from steelyard.gateway.server import serve  # noqa: E402
from steelyard.gateway.settings import GatewaySettings  # noqa: E402
from steelyard.placement.policy import CheapestFeasible  # noqa: E402
from steelyard.pools.endpoint import OpenAiEndpointPool  # noqa: E402
from steelyard.runtime.live import live_fleet  # noqa: E402
from steelyard.runtime.open_tasks import TaskLimits  # noqa: E402
from steelyard.runtime.runner import TaskRunner  # noqa: E402
from steelyard.store.sqlite_log import SqliteEventLog  # noqa: E402

_PROJECT, _MODULE = "coding_project", "pricing.py"
_MODEL = "smollm2-135m"


def main() -> None:
    """Run the seeds and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--most-tests", type=int, default=6)
    asked = parser.parse_args()
    print(f"{_MODEL}, {asked.most_tests} tries, {datetime.now(UTC).date().isoformat()}")
    with tempfile.TemporaryDirectory() as folder:
        # Tools run as another user in their sandbox, where this one is root.
        Path(folder).chmod(0o755)
        asyncio.run(_run(Path(folder), asked.seeds, asked.most_tests))


async def _run(folder: Path, seeds: int, most_tests: int) -> None:
    broken = _broken_sources(seeds)
    settings = Settings(
        pools={
            "local": EmbeddedPoolSettings(),
            "tools": ToolPoolSettings(python_paths=(_EXAMPLES, folder)),
        }
    )
    with SqliteEventLog(folder / "tasks.db") as log:
        async with (
            live_fleet(settings, load_catalog(), CheapestFeasible(), log) as dispatcher,
            serve(GatewaySettings(port=0), dispatcher) as server,
        ):
            client = OpenAiEndpointPool([server.base_url], [_MODEL])
            await client.start()
            try:
                runner = TaskRunner(dispatcher, client, _MODEL)
                await _table(runner, folder, broken, most_tests)
            finally:
                await client.close()


async def _table(runner: TaskRunner, folder: Path, broken: list[str], most_tests: int) -> None:
    print("seed  edits  that repair  repaired  tries  chance in so many  wall s")
    repaired: list[bool] = []
    chances: list[float] = []
    for seed, source in enumerate(broken):
        project = shutil.copytree(_EXAMPLES / _PROJECT, folder / f"seed{seed}")
        (project / _MODULE).write_text(source, encoding="utf-8")
        start_s = time.perf_counter()
        outcome = await runner.run(
            repair, f"seed{seed}", TaskLimits(), str(project), _MODULE, most_tests, 2, seed
        )
        wall_s = time.perf_counter() - start_s
        if outcome.error:
            raise SystemExit(f"seed {seed}: {outcome.error}")
        result: dict[str, Any] = outcome.result
        offered, right = _offered(source)
        chance = _chance(offered, right, most_tests)
        repaired.append(result["repaired"])
        chances.append(chance)
        print(
            f"{seed:4}  {offered:5}  {right:11}  {result['repaired']!s:>8}  "
            f"{result['tests_run']:5}  {chance:17.0%}  {wall_s:6.1f}",
            flush=True,
        )
    print(f"repaired {sum(repaired)} of {len(repaired)}; by chance {math.fsum(chances):.1f}")


def _broken_sources(seeds: int) -> list[str]:
    """The project as it should be, with one random edit that its tests notice."""
    source = (_EXAMPLES / _PROJECT / _MODULE).read_text(encoding="utf-8")
    whole = source.replace("quantity > 10", "quantity >= 10")
    edits = [apply_edit(whole, edit) for edit in single_edits(whole)]
    noticed = [one for one in edits if run_tests(_PROJECT, _MODULE, one)["failed"]]
    return [random.Random(seed).choice(noticed) for seed in range(seeds)]  # noqa: S311 - no secret


def _offered(source: str) -> tuple[int, int]:
    """How many edits does the agent choose from, and how many of them repair the source?"""
    suspects = run_tests(_PROJECT, _MODULE, source)["suspects"]
    edits: list[Edit] = [
        edit for edit in single_edits(source) if not suspects or edit["function"] in suspects
    ]
    right = [
        edit
        for edit in edits
        if not run_tests(_PROJECT, _MODULE, apply_edit(source, edit))["failed"]
    ]
    return len(edits), len(right)


def _chance(offered: int, right: int, tries: int) -> float:
    """Probability that one of the right edits is among the first ones of a random order."""
    wrong = offered - right
    return 1.0 - math.comb(wrong, min(tries, offered)) / math.comb(offered, min(tries, offered))


if __name__ == "__main__":
    main()

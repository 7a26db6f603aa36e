"""`steelyard export`: a plan as files of the tools that rent machines."""

from pathlib import Path

import msgspec

from steelyard.cli.fleet_file import read_plan
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings
from steelyard.errors import ConfigError
from steelyard.planner.export.machines import planned_nodes
from steelyard.planner.export.targets import export_nodes


def run_export(
    plan_path: Path, target: str, folder: Path, settings: PlanSettings, *, as_json: bool = False
) -> None:
    """Write the files and print their names.

    Args:
        plan_path: A plan as `steelyard plan --out` wrote it.
        target: Name of the tool.
        folder: Where to; made if missing.
        settings: What the plan was made with, for its catalogue.
        as_json: One JSON object with the names instead of lines.

    Raises:
        SteelyardError: The plan or the target is wrong, or a file cannot be written.
    """
    plan = read_plan(plan_path)
    files = export_nodes(target, planned_nodes(plan, planning_catalog(settings)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in sorted(files.items()):
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error}") from error
    written = [str(folder / name) for name in sorted(files)]
    told = msgspec.json.encode({"target": target, "files": written}).decode()
    print(told if as_json else "\n".join(written))

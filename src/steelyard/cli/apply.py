"""`steelyard apply`: make what is rented follow a plan; shown first, done when told to."""

import asyncio
import difflib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
from rich.console import Console

from steelyard.cli.fleet_edits import check_filled, edited, read_edits
from steelyard.cli.fleet_file import read_plan
from steelyard.cli.outputs import check_folder
from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings
from steelyard.errors import ConfigError, MissingExtraError, PoolError
from steelyard.planner.changes import MachineChange, machine_changes
from steelyard.planner.export.machines import PlannedNode, planned_nodes
from steelyard.planner.export.targets import export_nodes
from steelyard.planner.plan import FleetPlan
from steelyard.report.change_grids import change_grid
from steelyard.report.tables import print_grid

if TYPE_CHECKING:
    from steelyard.pools.ray.machines import RayFleet

Target = Literal["ray", "skypilot", "kubernetes"]
_PROGRAMS: Mapping[str, str] = MappingProxyType({"skypilot": "sky", "kubernetes": "kubectl"})
# The result alone goes to standard output.
_STDERR = 2
_STATE_FILE = "in-force.json"


class ApplyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for.

    Attributes:
        target: Which tool rents the machines.
        folder: Where its files and the state in force lie.
        ray_address: The cluster, for `ray`.
        yes: Whether to change anything.
        as_json: Whether to print JSON.
    """

    target: Target
    folder: Path
    ray_address: str = "auto"
    yes: bool = False
    as_json: bool = False


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What was applied last, as far as it was done.

    Attributes:
        target: With which tool.
        machines: Machines by offering.
        nodes: Machines by the name that the tool knows them by.
        files: SHA-256 of the files that the tool has taken, by name.
    """

    target: Target
    machines: dict[str, int] = {}
    nodes: dict[str, int] = {}
    files: dict[str, str] = {}


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` prints with `--json`.

    Attributes:
        target: The tool.
        changes: Machines that change.
        files: Files that are new or changed.
        commands: What is run, or would be.
        done: Whether it was done.
    """

    target: Target
    changes: tuple[MachineChange, ...]
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    done: bool


def target_named(name: str) -> Target:
    """Which target is called so?

    Raises:
        ConfigError: None is.
    """
    try:
        target: Target = msgspec.convert(name, Target)
    except msgspec.ValidationError:
        allowed = ", ".join(get_args(Target))
        raise ConfigError(f"--to {name} cannot be applied; allowed are {allowed}") from None
    return target


def run_apply(plan_path: Path, asked: ApplyRequest, settings: PlanSettings) -> None:
    """Show what a plan changes, and do it where that is asked for.

    Args:
        plan_path: A plan as `steelyard plan --out` wrote it.
        asked: What the command line asks for.
        settings: What the plan was made with, for its catalogue.

    Raises:
        SteelyardError: The plan is wrong, a file cannot be written, or the tool fails.
    """
    check_folder("--out", asked.folder)
    apply_plan(read_plan(plan_path), asked, planning_catalog(settings))


def apply_plan(plan: FleetPlan, asked: ApplyRequest, catalog: Catalog) -> None:
    """The same of a plan that was read."""
    nodes = planned_nodes(plan, catalog)
    files = edited(read_edits(asked.folder), export_nodes(asked.target, nodes))
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    renewed = _file_changes(asked.folder, files)
    state = _in_force(asked)
    after = {node.offering.name: node.machines for node in nodes}
    told = Applied(
        target=asked.target,
        changes=machine_changes(state.machines, after, catalog),
        files=renewed,
        # The tool may have failed, or been missing, after the files were written.
        commands=_commands(asked, state, nodes, is_new=bool(renewed) or digests != state.files),
        done=asked.yes,
    )
    if not asked.as_json:
        _show(told, asked.folder, files)
    if asked.yes:
        if told.commands:
            check_filled(asked.folder, files)
        _write(asked.folder, files)
        _do(asked, told, nodes)
        names = {node.name: node.machines for node in nodes}
        done = InForce(target=asked.target, machines=after, nodes=names, files=digests)
        _write(asked.folder, {_STATE_FILE: msgspec.json.encode(done).decode() + "\n"})
    if asked.as_json:
        print(msgspec.json.encode(told).decode())
    elif asked.yes:
        print(f"done; the state in force is in {asked.folder / _STATE_FILE}")
    else:
        print("nothing was changed; --yes does it")


def _in_force(asked: ApplyRequest) -> InForce:
    """What is rented now? A Ray cluster says it itself; of the others we know what we did."""
    if asked.target == "ray":
        try:
            return InForce(target="ray", machines=_ray_machines(asked.ray_address))
        except PoolError as error:
            if asked.yes:
                raise ConfigError(
                    f"{error}; its files can be written with `steelyard export`, and the cluster "
                    "started with `ray up FILE`"
                ) from error
            print(f"no state in force: {error}", file=sys.stderr)
            return InForce(target="ray")
    path = asked.folder / _STATE_FILE
    try:
        state = msgspec.json.decode(path.read_bytes(), type=InForce)
    except FileNotFoundError:
        return InForce(target=asked.target)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"the state in force {path} cannot be read: {error}") from error
    if state.target != asked.target:
        raise ConfigError(
            f"{asked.folder} holds what was applied to {state.target}; give {asked.target} a "
            "folder of its own with --out"
        )
    return state


def _commands(
    asked: ApplyRequest,
    state: InForce,
    nodes: tuple[PlannedNode, ...],
    *,
    is_new: bool,
) -> tuple[tuple[str, ...], ...]:
    """What makes the tool follow? Nothing for machines that stay as they are."""
    wanted = {node.name: node.machines for node in nodes}
    gone = [name for name in sorted(state.nodes) if name not in wanted]
    changed = [name for name in sorted(wanted) if state.nodes.get(name) != wanted[name]]
    if asked.target == "kubernetes":
        file = str(asked.folder / "deployments.yaml")
        apply = [("kubectl", "apply", "--filename", file)] if changed or is_new else []
        return (
            *apply,
            *(("kubectl", "delete", "deployment", name, "--ignore-not-found") for name in gone),
        )
    if asked.target == "skypilot":
        # A running cluster of SkyPilot's cannot be resized: it is let go, and launched anew.
        down = [*gone, *(name for name in changed if name in state.nodes)]
        return (
            *(("sky", "down", "--yes", name) for name in sorted(down)),
            *(
                ("sky", "launch", "--yes", "--detach-run", "--cluster", name, str(path))
                for name in changed
                for path in [asked.folder / f"{name}.sky.yaml"]
            ),
        )
    return ()


def _do(asked: ApplyRequest, told: Applied, nodes: tuple[PlannedNode, ...]) -> None:
    if asked.target == "ray":
        _request_ray(asked.ray_address, nodes)
        return
    program = _PROGRAMS[asked.target]
    if told.commands and shutil.which(program) is None:
        raise ConfigError(
            f"{program} is not installed here; the files are in {asked.folder}, and nothing was "
            f"rented: install {program}, or run on a machine that has it"
        )
    for command in told.commands:
        print("$ " + " ".join(command), file=sys.stderr)
        ended = subprocess.run(command, check=False, stdout=_STDERR)  # noqa: S603 - no shell
        if ended.returncode != 0:
            raise ConfigError(
                f"`{' '.join(command)}` ended with {ended.returncode}; the state in force is "
                "noted as it was: apply again once the cause is gone"
            )


def _ray_machines(address: str) -> dict[str, int]:
    fleet = _ray_fleet(address)
    try:
        return asyncio.run(fleet.machines())
    finally:
        fleet.close()


def _request_ray(address: str, nodes: tuple[PlannedNode, ...]) -> None:
    fleet = _ray_fleet(address)
    try:
        fleet.request(
            {node.offering.name: node.machines for node in nodes},
            {node.offering.name: node.offering.instance_type.vcpus for node in nodes},
        )
    finally:
        fleet.close()


def _ray_fleet(address: str) -> "RayFleet":
    try:
        from steelyard.pools.ray.machines import RayFleet
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--to ray needs {error.name}, which is not installed; pip install 'steelyard[ray]'"
        ) from error
    return RayFleet(address)


def _show(told: Applied, folder: Path, files: Mapping[str, str]) -> None:
    print_grid(change_grid(told.changes), Console(file=sys.stdout))
    if not told.changes:
        print("the machines in force are those of the plan")
    for name in told.files:
        print("".join(_diff(folder / name, files.get(name, ""))), end="")
    for command in told.commands:
        print("$ " + " ".join(command))


def _file_changes(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in sorted(files) if _text(folder / name) != files[name])


def _diff(path: Path, text: str) -> list[str]:
    before = _text(path).splitlines(keepends=True)
    return list(difflib.unified_diff(before, text.splitlines(keepends=True), str(path), "planned"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _write(folder: Path, files: Mapping[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in sorted(files.items()):
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error}") from error

"""An agent that repairs a small Python project: a search over edits, judged by the project's tests.

    steelyard run examples/coding_agent.py:repair --deadline 120s --budget 0.01

Who does what, plainly:

- **The edits are made mechanically** (`coding_edits.py`): one operator or one number of one line,
  in the functions that the failing tests called. Nobody wrote the right one down anywhere.
- **The model chooses** which edit to try next, from a list, under a JSON schema that allows
  nothing else; several choices are drawn side by side, and what was tried is off the list.
- **The tests decide**, in a sandbox, on a copy of the project.

The model of 135M parameters that this runs on by default understands next to nothing of the code:
its choice is about as good as chance (benchmarks/coding_agent.py compares them), so that what
repairs the project is the search. Steps, limits and records would be a better model's, too.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coding_edits import Edit, apply_edit, single_edits

import steelyard
from steelyard.runtime.context import Sampling, TaskContext, decode_answer

_FOLDER = Path(__file__).parent
_TEST_S = 10.0
_QUESTION = (
    "This Python code has one wrong line.\n\n```python\n{source}\n```\n\n"
    "These tests fail:\n{failed}\n\nWhich change repairs it?"
)


@steelyard.tool(timeout_s=20.0)
def read_source(project: str, module: str) -> str:
    """What is the source of a module of the project?"""
    return (_FOLDER / project / module).read_text(encoding="utf-8")


@steelyard.tool(timeout_s=30.0)
def run_tests(project: str, module: str, source: str) -> dict[str, Any]:
    """Do the project's tests pass with this source of the module?

    Args:
        project: Folder, seen from this file; it is copied, never changed.
        module: File to replace in the copy.
        source: What it is to hold.

    Returns:
        Names and messages of the tests that failed, and the functions that they called.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(_FOLDER / project, Path(folder) / "copy")
        (copy / module).write_text(source, encoding="utf-8")
        try:
            ran = subprocess.run(  # noqa: S603 - our own program, on a copy
                [sys.executable, "-B", str(_FOLDER / "coding_runner.py")],
                cwd=copy,
                capture_output=True,
                text=True,
                timeout=_TEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": [f"the tests ran for {_TEST_S:g} s"], "suspects": [], "count": 0}
    try:
        report: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": [f"no report: {ran.stderr[-200:]}"], "suspects": [], "count": 0}
    return report


@steelyard.task(name="coding_agent")
async def repair(
    ctx: TaskContext,
    project: str = "coding_project",
    module: str = "pricing.py",
    most_tests: int = 32,
    at_once: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Repair one module of a project.

    Args:
        ctx: The task.
        project: Folder, seen from this file; tools must be able to read it.
        module: The file that may be changed.
        most_tests: Edits that are tried at most.
        at_once: Edits that are chosen and tried side by side.
        seed: Where the model's choices begin.

    Returns:
        The edit that made the tests pass, if one did, and how many were tried.
    """
    source = await ctx.tool(read_source, project, module)
    broken = await ctx.tool(run_tests, project, module, source)
    edits = single_edits(source)
    suspects = broken["suspects"]
    edits = [edit for edit in edits if not suspects or edit["function"] in suspects]
    tried = 0
    offered = len(edits)
    while broken["failed"] and edits and tried < most_tests:
        seeds = range(seed + tried, seed + tried + min(at_once, most_tests - tried))
        question = _question(source, broken["failed"], suspects)
        chosen = await ctx.gather(*(_choose(ctx, question, edits, one) for one in seeds))
        unique = sorted({number for number in chosen if number is not None})
        reports = await ctx.gather(
            *(ctx.tool(run_tests, project, module, apply_edit(source, edits[i])) for i in unique)
        )
        tried += max(1, len(unique))
        for number, report in zip(unique, reports, strict=True):
            if not report["failed"]:
                return _told(edits[number], tried, offered, broken["failed"])
        edits = [edit for number, edit in enumerate(edits) if number not in unique]
    return _told(None, tried, offered, broken["failed"])


async def _choose(ctx: TaskContext, question: str, edits: list[Edit], seed: int) -> int | None:
    """Which edit does the model take? Its number in the list; None for one that is not there."""
    labels = [f"line {edit['line']}: {edit['new'].strip()}" for edit in edits]
    answer = await ctx.llm(
        [{"role": "user", "content": question}],
        step="choose",
        max_output_tokens=96,
        json_schema={"enum": labels},
        sampling=Sampling(temperature=1.0, seed=seed),
    )
    said = decode_answer(answer, "choose")
    # Checked, since an endpoint may not keep to the schema.
    return labels.index(said) if said in labels else None


def _question(source: str, failed: list[str], suspects: list[str]) -> str:
    """The question, with the suspected functions alone: a short prompt, equal for all choices."""
    blocks = source.split("\n\n\n")
    shown = [one for one in blocks if any(f"def {name}(" in one for name in suspects)]
    return _QUESTION.format(source="\n\n\n".join(shown or blocks), failed="\n".join(failed))


def _told(edit: Edit | None, tried: int, offered: int, failed: list[str]) -> dict[str, Any]:
    return {
        "repaired": edit is not None or not failed,
        "failed_before": failed,
        "edit": edit,
        "tests_run": tried,
        "edits_offered": offered,
    }

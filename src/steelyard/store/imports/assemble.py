"""From steps seen in a log to tasks: who waited for whom, what lay between, what is missing."""

import datetime as dt
import math
from collections import Counter
from pathlib import Path

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError
from steelyard.store.imports.record import Imported, ImportReport, SeenStep

# Clocks of logs are exact to a millisecond; shorter gaps are none.
_SHORTEST_GAP_S = 0.001

_ASSUMPTIONS = {
    "prompt_tokens": "steps without prompt_tokens are taken to have an empty prompt",
    "output_tokens": "steps without output_tokens are taken to answer nothing",
    "shared_prefix_tokens": (
        "a prompt no shorter than the task's last one to the model is taken to repeat all of it "
        "(agents send their conversation again); cached_tokens count where they are more"
    ),
    "end": "steps without an end are taken to end when the task's next step begins",
    "cpu_s": "tools without CPU time are taken to wait for all of their wall time, and to use none",
    "memory": "tools without peak memory are taken to use none",
    "model": "calls without a model get an empty model name; name one before planning",
}


def assemble(path: Path, form: str, seen: list[SeenStep], skipped: Counter[str]) -> Imported:
    """Which tasks do these steps make up?

    Steps of a task are put in order of their beginnings. A step waits for the steps that had ended
    before it began and that no other such step waited for. Where others waited for all of those
    (it began while they ran), it waits for the one that had ended last, or for the task's
    beginning. The time between is a gap of its own (kind `human`), because no log says what the
    agent did in it.

    Args:
        path: The file, for names and messages.
        form: Name of its format.
        seen: The steps, in any order.
        skipped: Why other rows are no steps.

    Returns:
        The workload, its first task at 0 s, with the report.

    Raises:
        WorkloadError: There is no step.
    """
    if not seen:
        told = ", ".join(f"{count} x {why}" for why, count in sorted(skipped.items()))
        raise WorkloadError(
            f"{path}: no LLM or tool step found as {form}"
            + (f" ({told})" if told else "")
            + "; check the file, or name its format with --from"
        )
    tasks: dict[str, list[SeenStep]] = {}
    for step in seen:
        tasks.setdefault(step.task, []).append(step)
    start_s = min(step.start_s for step in seen)
    missing: Counter[str] = Counter()
    made = [_task(name, steps, start_s, missing, path.stem) for name, steps in tasks.items()]
    made.sort(key=lambda task: (task.arrival_s, task.task_id))
    gaps = sum(step.name == "gap" and step.kind == "human" for t in made for step in t.steps)
    assumed = [_ASSUMPTIONS[one] for one in sorted(missing) if one in _ASSUMPTIONS]
    if gaps:
        assumed.append(f"{gaps} gaps between steps are waited for and use no hardware")
    return Imported(
        workload=Workload(name=path.stem, tasks=tuple(made), source=f"{path} ({form})"),
        report=ImportReport(
            source=str(path),
            form=form,
            rows=len(seen) + sum(skipped.values()),
            skipped=dict(sorted(skipped.items())),
            missing=dict(sorted(missing.items())),
            assumed=tuple(assumed),
        ),
    )


def _task(
    name: str, seen: list[SeenStep], origin_s: float, missing: Counter[str], stem: str
) -> WorkloadTask:
    ordered = sorted(seen, key=lambda step: (step.start_s, step.row))
    ends_s = _ends_s(ordered, missing)
    steps: list[WorkloadStep] = []
    # (number of the step that stands for it, its end); what nobody has waited for yet
    open_ends: list[tuple[int, float]] = []
    ended_last: list[tuple[int, float]] = []
    last: dict[str, SeenStep] = {}
    for step, end_s in zip(ordered, ends_s, strict=True):
        done = [one for one in open_ends if one[1] <= step.start_s + _SHORTEST_GAP_S]
        open_ends = [one for one in open_ends if one not in done]
        if done:
            ended_last = [max(done, key=lambda one: one[1])]
        waited_for = done or ended_last
        parents = tuple(number for number, _ in waited_for)
        gap_s = step.start_s - max((end for _, end in waited_for), default=ordered[0].start_s)
        if gap_s > _SHORTEST_GAP_S:
            steps.append(_gap(len(steps), parents, gap_s))
            parents = (len(steps) - 1,)
        steps.append(_step(len(steps), parents, step, end_s, last.get(step.model), missing))
        open_ends.append((len(steps) - 1, end_s))
        if step.kind == "llm":
            last[step.model] = step
    return WorkloadTask(
        task_id=name,
        agent=next((step.agent for step in ordered if step.agent), stem),
        arrival_s=ordered[0].start_s - origin_s,
        steps=tuple(steps),
    )


def _ends_s(ordered: list[SeenStep], missing: Counter[str]) -> list[float]:
    ends_s: list[float] = []
    for at, step in enumerate(ordered):
        if step.end_s is not None:
            ends_s.append(max(step.start_s, step.end_s))
            continue
        missing["end"] += 1
        later = ordered[at + 1].start_s if at + 1 < len(ordered) else step.start_s
        ends_s.append(later)
    return ends_s


def _gap(number: int, parents: tuple[int, ...], gap_s: float) -> WorkloadStep:
    return WorkloadStep(
        step_id=number,
        parents=parents,
        kind="human",
        name="gap",
        think_or_tool_s=gap_s,
        recorded_s=gap_s,
    )


def _step(
    number: int,
    parents: tuple[int, ...],
    seen: SeenStep,
    end_s: float,
    before: SeenStep | None,
    missing: Counter[str],
) -> WorkloadStep:
    recorded_s = None if seen.end_s is None else end_s - seen.start_s
    if seen.kind == "tool":
        missing["cpu_s"] += seen.cpu_s is None
        missing["memory"] += seen.memory_bytes is None
        cpu_s = seen.cpu_s or 0.0
        made = WorkloadStep(
            step_id=number,
            parents=parents,
            kind="tool",
            name=seen.name or seen.tool or "tool",
            tool=seen.tool or seen.name or "tool",
            cpu_s=cpu_s,
            think_or_tool_s=max(0.0, end_s - seen.start_s - cpu_s),
            memory_bytes=seen.memory_bytes or 0,
            recorded_s=recorded_s,
        )
    else:
        prompt_tokens = seen.prompt_tokens or 0
        made = WorkloadStep(
            step_id=number,
            parents=parents,
            kind="llm",
            name=seen.name or "llm",
            model=seen.model,
            prompt_tokens=prompt_tokens,
            output_tokens=seen.output_tokens or 0,
            max_output_tokens=seen.max_output_tokens,
            cached_tokens=seen.cached_tokens,
            shared_prefix_tokens=min(prompt_tokens, _shared(seen, before, missing)),
            recorded_s=recorded_s,
        )
        for column in ("prompt_tokens", "output_tokens"):
            missing[column] += getattr(seen, column) is None
        missing["model"] += not seen.model
    for name in [one for one, count in missing.items() if count == 0]:
        del missing[name]
    return made


def _shared(seen: SeenStep, before: SeenStep | None, missing: Counter[str]) -> int:
    """Prompt tokens that repeat the task's last prompt to the model, as told or as assumed."""
    if seen.shared_prefix_tokens is not None:
        return seen.shared_prefix_tokens
    missing["shared_prefix_tokens"] += 1
    earlier = 0 if before is None else before.prompt_tokens or 0
    grown = earlier if (seen.prompt_tokens or 0) >= earlier else 0
    return max(grown, 0 if before is None else seen.cached_tokens or 0)


def seconds_of(path: Path, where: str, value: object) -> float:
    """Which time is this? RFC 3339, or a number of seconds.

    Args:
        path: The file, for the message.
        where: Row and column, for the message.
        value: What stands there.

    Returns:
        Seconds since 1970, or since the file's own origin for numbers.

    Raises:
        WorkloadError: It is neither; the message names file, row, column, value and cure.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    text = str(value).strip()
    try:
        if math.isfinite(number := float(text)):
            return number
    except ValueError:
        pass
    try:
        told = dt.datetime.fromisoformat(text)
        # A time without a zone is taken as UTC, the same on every machine.
        return (told if told.tzinfo else told.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise WorkloadError(
            f"{path}: {where} is {value!r}, which is no time; write RFC 3339 "
            "(2026-11-23T10:00:00Z) or seconds"
        ) from error


def count_of(path: Path, where: str, value: object) -> int | None:
    """How many tokens or bytes are told? None where nothing stands.

    Raises:
        WorkloadError: It is no whole number of 0 or more; the message names all it takes to mend.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number) and number >= 0 and number == int(number):
            return int(number)
    raise WorkloadError(f"{path}: {where} is {value!r}; it must be a whole number of 0 or more")

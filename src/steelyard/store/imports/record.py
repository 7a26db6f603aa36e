"""What readers make of a row, and what they tell about a file: the step seen, and the report."""

from typing import Literal

import msgspec

from steelyard.domain.workload import Workload


class SeenStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step as a log shows it, before it has a place in a task.

    Attributes:
        row: Number of its row or record in the file, from 1; for messages.
        task: What groups steps into a task: a trace id, a session id.
        kind: `llm` or `tool`.
        start_s: When it began, seconds from any origin.
        end_s: When it ended; None where the log does not say.
        agent: Name of its agent; empty where unknown.
        name: Name of the step; empty where unknown.
        model: Model of a call.
        tool: Name of a tool.
        prompt_tokens: Length of the prompt; None where unknown.
        output_tokens: Length of the answer; None where unknown.
        cached_tokens: Prompt tokens read from a cache; None where unknown.
        shared_prefix_tokens: Prompt tokens that repeat an earlier prompt; None where unknown.
        max_output_tokens: The caller's limit; None where unknown.
        cpu_s: CPU seconds of a tool; None where unknown.
        memory_bytes: Peak memory of a tool; None where unknown.
    """

    row: int
    task: str
    kind: Literal["llm", "tool"]
    start_s: float
    end_s: float | None = None
    agent: str = ""
    name: str = ""
    model: str = ""
    tool: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    shared_prefix_tokens: int | None = None
    max_output_tokens: int | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a file held, what it lacked, and what was assumed in its place.

    Attributes:
        source: The file.
        form: Name of its format.
        rows: Rows or records read.
        skipped: Why rows are no steps, and how many.
        missing: What was not in the file, and for how many steps.
        assumed: What was taken in its place, one sentence each.
    """

    source: str
    form: str
    rows: int
    skipped: dict[str, int] = {}
    missing: dict[str, int] = {}
    assumed: tuple[str, ...] = ()


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A workload from a foreign file.

    Attributes:
        workload: Its tasks.
        report: What was missing and assumed.
    """

    workload: Workload
    report: ImportReport

"""Any file as a workload: the format is told from its content, or by the user."""

import difflib
from collections.abc import Callable
from pathlib import Path

from steelyard.domain.workload import Workload
from steelyard.errors import WorkloadError
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.store.imports import langfuse, litellm, mapped, otlp, requests
from steelyard.store.imports.record import Imported, ImportReport
from steelyard.store.imports.records import Record, records_of
from steelyard.store.sqlite_log import read_events
from steelyard.store.workload_file import read_workload

STEELYARD = "steelyard"
LEDGER = "ledger"
_READERS: dict[str, Callable[[Path], Imported]] = {
    otlp.FORM: otlp.read,
    litellm.FORM: litellm.read,
    langfuse.FORM: langfuse.read,
    requests.FORM: requests.read,
}
_LOOKS: tuple[tuple[str, Callable[[Record], bool]], ...] = (
    (otlp.FORM, otlp.looks_like),
    (litellm.FORM, litellm.looks_like),
    (langfuse.FORM, langfuse.looks_like),
    (requests.FORM, requests.looks_like),
)
FORMS = (STEELYARD, LEDGER, *_READERS, mapped.FORM)

_SQLITE = b"SQLite format 3\x00"


def import_workload(path: Path, form: str = "", mapping: str = "") -> Imported:
    """Which workload does this file hold?

    Args:
        path: A workload file, a store of `steelyard up`, OTLP JSON, LiteLLM spend logs, a Langfuse
            export, a request trace, or a table.
        form: One of `FORMS`; told from the content when empty.
        mapping: Columns of a table as `ours=theirs,...`; given, the form is `csv`.

    Returns:
        The workload, with a report of what was missing and assumed.

    Raises:
        WorkloadError: The file cannot be read as this; the message names file, row and cure.
    """
    if not path.is_file():
        raise WorkloadError(f"workload {path} does not exist; give a file")
    chosen = form or (mapped.FORM if mapping else _form_of(path))
    if chosen == STEELYARD:
        return _recorded(path, read_workload(path), STEELYARD)
    if chosen == LEDGER:
        workload = workload_of(Ledger.of(read_events(path)), path.stem, str(path))
        if not workload.tasks:
            raise WorkloadError(f"store {path} holds no step that went well; run something first")
        return _recorded(path, workload, LEDGER)
    if chosen == mapped.FORM:
        return mapped.read(path, mapped.mapping_of(mapping))
    if chosen not in _READERS:
        near = difflib.get_close_matches(chosen, FORMS, n=1)
        cure = f"did you mean {near[0]}?" if near else f"known: {', '.join(FORMS)}"
        raise WorkloadError(f"--from {chosen!r} is no format; {cure}")
    return _READERS[chosen](path)


def _form_of(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(len(_SQLITE))
    if start == _SQLITE:
        return LEDGER
    if path.suffix == ".parquet":
        return STEELYARD
    nothing: Record = {}
    first = next((record for _, record in records_of(path)), nothing)
    if {"task_id", "step_id", "kind"} <= set(first) and path.suffix == ".jsonl":
        return STEELYARD
    for form, looks_like in _LOOKS:
        if looks_like(first):
            return form
    raise WorkloadError(
        f"{path}: the format is not known from its fields ({', '.join(first) or 'none'}); name it "
        f"with --from ({', '.join(FORMS)}), or map columns: --map task_id=...,start_s=..."
    )


def _recorded(path: Path, workload: Workload, form: str) -> Imported:
    steps = [step for task in workload.tasks for step in task.steps]
    calls = [step for step in steps if step.kind == "llm"]
    missing = {
        "arrival_s": len(workload.tasks) if _arrives_at_once(workload) else 0,
        "model": sum(not step.model for step in calls),
        "shared_prefix_tokens": sum(
            step.shared_prefix_tokens == 0 and step.cached_tokens is not None for step in calls
        ),
        "deadline_after_s": sum(task.deadline_after_s is None for task in workload.tasks),
    }
    assumed = (
        ("no arrivals are recorded: all tasks arrive at once; draw some with --rate or --arrivals",)
        if missing["arrival_s"]
        else ()
    )
    return Imported(
        workload=workload,
        report=ImportReport(
            source=str(path),
            form=form,
            rows=len(steps),
            missing={name: count for name, count in missing.items() if count},
            assumed=assumed,
        ),
    )


def _arrives_at_once(workload: Workload) -> bool:
    return len({task.arrival_s for task in workload.tasks}) == 1 and len(workload.tasks) > 1

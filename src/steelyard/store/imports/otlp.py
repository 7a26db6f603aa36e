"""OpenTelemetry GenAI spans as OTLP JSON.

Sources: OTLP/HTTP JSON encoding (opentelemetry.io/docs/specs/otlp, 1.7; file form of the
specification's `protocol/file-exporter`): `resourceSpans > scopeSpans > spans`, times in
nanoseconds as text, attributes as `{key, value: {stringValue | intValue | ...}}`, 64-bit integers
as text. GenAI attributes: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
(`gen_ai.operation.name`, `gen_ai.usage.input_tokens`, ...); names before v1.27
(`gen_ai.usage.prompt_tokens`) are read, too. Read 2026-11-23.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from steelyard.errors import WorkloadError
from steelyard.store.imports.assemble import assemble, count_of
from steelyard.store.imports.own_spans import OwnAttempt, is_own, own_attempt, own_workload
from steelyard.store.imports.record import Imported, SeenStep
from steelyard.store.imports.records import Record, field, nested, objects_of, records_of

FORM = "otlp"

_CALLS = {"chat", "text_completion", "generate_content"}
_NANO = 1_000_000_000


def looks_like(record: Record) -> bool:
    """Is this record OTLP JSON?"""
    return "resourceSpans" in record


def read(path: Path) -> Imported:
    """Which tasks do these spans show?

    A task is a trace, or a conversation (`gen_ai.conversation.id`) where spans name one; spans of
    `invoke_agent` and others that only hold calls are left out. Where spans are Steelyard's own,
    those of others beside them show the same calls once more, and are left out.

    Args:
        path: OTLP JSON, one export request or one per line.

    Returns:
        The workload and the report.

    Raises:
        WorkloadError: The file holds no such span, or a span is wrong.
    """
    seen: list[SeenStep] = []
    own: list[OwnAttempt] = []
    skipped: Counter[str] = Counter()
    for row, (span, resource) in enumerate(_spans(path), start=1):
        told = _attributes(path, f"span {row},", span)
        if is_own(told):
            attempt = own_attempt(path, row, span, told)
            if attempt is None:
                skipped["span that is no attempt that went well"] += 1
            else:
                own.append(attempt)
            continue
        step = _step(path, row, span, resource)
        if step is None:
            skipped["span that is neither a call nor a tool"] += 1
        else:
            seen.append(step)
    if own:
        if seen:
            skipped["span of another program beside Steelyard's"] += len(seen)
        return own_workload(path, FORM, own, skipped)
    return assemble(path, FORM, seen, skipped)


def _spans(path: Path) -> Iterator[tuple[Record, Record]]:
    for row, request in records_of(path):
        where = f"record {row},"
        for group in objects_of(path, where, request, "resourceSpans"):
            resource = _attributes(path, where, nested(group, "resource"))
            for scope in objects_of(path, where, group, "scopeSpans"):
                for span in objects_of(path, where, scope, "spans"):
                    yield span, resource


def _attributes(path: Path, where: str, holder: Record) -> Record:
    found: Record = {}
    for pair in objects_of(path, where, holder, "attributes"):
        value = nested(pair, "value")
        for kind in ("stringValue", "intValue", "doubleValue", "boolValue"):
            if kind in value:
                found[str(pair.get("key"))] = value[kind]
        if "arrayValue" in value:
            held = objects_of(path, where, nested(value, "arrayValue"), "values")
            # All of ours are of whole numbers.
            found[str(pair.get("key"))] = [one.get("intValue") for one in held]
    return found


def _step(path: Path, row: int, span: Record, resource: Record) -> SeenStep | None:
    told = _attributes(path, f"span {row},", span)
    operation = str(told.get("gen_ai.operation.name", ""))
    tool = str(field(told, "gen_ai.tool.name") or "")
    has_tokens = "gen_ai.usage.input_tokens" in told or "gen_ai.usage.prompt_tokens" in told
    is_tool = operation == "execute_tool"
    if not is_tool and operation not in _CALLS and (operation or not has_tokens):
        return None
    where = f"span {row} ({span.get('name', '')!r}):"
    agent = field(told, "gen_ai.agent.name") or field(resource, "service.name") or ""

    def count(*names: str) -> int | None:
        name = next((one for one in names if one in told), names[0])
        return count_of(path, f"{where} {name}", told.get(name))

    return SeenStep(
        row=row,
        task=str(field(told, "gen_ai.conversation.id") or field(span, "traceId") or row),
        kind="tool" if is_tool else "llm",
        start_s=_nano_s(path, where, span, "startTimeUnixNano"),
        end_s=_nano_s(path, where, span, "endTimeUnixNano"),
        agent=str(agent),
        tool=tool,
        model=str(field(told, "gen_ai.response.model", "gen_ai.request.model") or ""),
        prompt_tokens=count("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        output_tokens=count("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        cached_tokens=count(
            "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"
        ),
        max_output_tokens=count("gen_ai.request.max_tokens"),
    )


def _nano_s(path: Path, where: str, span: Record, name: str) -> float:
    value = span.get(name)
    try:
        return int(str(value)) / _NANO
    except ValueError as error:
        raise WorkloadError(
            f"{path}: {where} {name} is {value!r}; it must be nanoseconds since 1970 as a number"
        ) from error

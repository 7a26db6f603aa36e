"""Through the official SDK to a real receiver, and through a file and back."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.gateway.conftest import Rig, start_gateway
from tests.ledger.books import Books, llm_call
from tests.telemetry.receiver import Collector, collector
from typer.testing import CliRunner

from steelyard.cli.app import app
from steelyard.cli.telemetry import telling, wants_traces
from steelyard.config.settings import Settings, TelemetrySection
from steelyard.domain.events import Event, StepPlaced, TaskFinished, Usage
from steelyard.domain.trace_context import span_id_of
from steelyard.domain.workload import Workload
from steelyard.gateway.settings import GatewaySettings
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.store.imports.read import import_workload
from steelyard.store.sqlite_log import SqliteEventLog
from steelyard.telemetry import names
from steelyard.telemetry.fold import spans_of
from steelyard.telemetry.otlp_json import write_spans
from steelyard.telemetry.sdk import send_spans
from steelyard.telemetry.span import Span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


def _log() -> list[Event]:
    """Two tasks with calls that go on from one another, a tool, a failure and a terms."""
    books = Books()
    for number, task_id in enumerate(("one", "two")):
        at_s = 1_763_890_000.1234567 + 10 * number
        books.open(task_id, at_s, deadline_s=at_s + 60.0, budget_usd=0.1 + number)
        limits: dict[str, Any] = {"deadline_s": at_s + 60.0, "budget_usd": 0.1 + number}
        first = llm_call(prefix_hashes=(1, 2), prefix_tokens=(40, 100))
        used = Usage(input_tokens=110, output_tokens=20, wall_s=1.25, cached_tokens=3)
        books.attempt(
            task_id, 0, times_s=(at_s, at_s + 0.3, at_s + 1.55), call=first, usage=used, **limits
        )
        ran = Usage(cpu_s=0.7, memory_bytes=12345, wall_s=1.1)
        books.attempt(
            task_id, 1, times_s=(at_s + 2, at_s + 2, at_s + 3.1), pool="tools", usage=ran,
            parents=(0,), **limits,
        )  # fmt: skip
        again = llm_call(prefix_hashes=(1, 2, 3), prefix_tokens=(40, 100, 130))
        books.attempt(
            task_id, 2, times_s=(at_s + 4, at_s + 4, at_s + 5), call=again, outcome="failed",
            parents=(1,), **limits,
        )  # fmt: skip
        used = Usage(input_tokens=140, output_tokens=9, wall_s=0.5, start_to_first_token_s=0.1)
        books.attempt(
            task_id, 2, times_s=(at_s + 5, at_s + 5, at_s + 5.5), call=again, usage=used,
            parents=(1,), attempt=1, cost_usd=0.001, **limits,
        )  # fmt: skip
        books.close(task_id, at_s + 6)
    return books.events


def _by_id(spans: list[Span]) -> dict[str, Span]:
    return {span.span_id: span for span in spans}


def test_a_collector_gets_the_tree_of_the_log() -> None:
    log = _log()
    with collector() as got:
        assert send_spans(got.url, spans_of(log)) == 16
    assert got.services == {"steelyard"}
    assert _by_id(got.spans) == _by_id(list(spans_of(log)))


def _told(workload: Workload) -> Workload:
    """All but the names of file and log, and what no span tells."""
    tasks = tuple(
        msgspec.structs.replace(
            task,
            steps=tuple(
                msgspec.structs.replace(step, common_prefix_tokens=0) for step in task.steps
            ),
        )
        for task in workload.tasks
    )
    return msgspec.structs.replace(workload, name="", source="", tasks=tasks)


def test_spans_in_a_file_come_back_as_the_same_workload(tmp_path: Path) -> None:
    log = _log()
    file = tmp_path / "spans.json"
    assert write_spans(file, spans_of(log), "0") == 16
    read = import_workload(file)
    assert _told(read.workload) == _told(workload_of(Ledger.of(log), "", ""))
    assert len(read.workload.tasks[0].steps) == 3
    assert read.workload.tasks[0].steps[2].shared_prefix_tokens == 130


def test_a_command_sends_a_recorded_log_and_writes_it(tmp_path: Path) -> None:
    log = _log()
    store = SqliteEventLog(tmp_path / "log.db")
    for event in log:
        store.append(event)
    store.durable().result(10.0)
    store.close()
    runner = CliRunner()
    with collector() as got:
        sent = runner.invoke(app, ["traces", "export", str(store.path), "--to", got.url])
    assert sent.output == f"16 spans to {got.url}\n"
    assert _by_id(got.spans) == _by_id(list(spans_of(log)))
    file = tmp_path / "spans.json"
    written = runner.invoke(app, ["traces", "export", str(store.path), "--to", str(file)])
    assert written.exit_code == 0
    assert len(import_workload(file).workload.tasks) == 2
    # A log that cannot be read leaves what was written before, and nothing else.
    (tmp_path / "no.db").write_bytes(b"no log" * 100)
    refused = runner.invoke(app, ["traces", "export", str(tmp_path / "no.db"), "--to", str(file)])
    assert refused.exit_code != 0
    assert len(import_workload(file).workload.tasks) == 2
    assert not file.with_suffix(".new").exists()


def test_nothing_is_told_unless_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert not wants_traces(TelemetrySection())
    assert wants_traces(TelemetrySection(endpoint="http://127.0.0.1:4318"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert wants_traces(TelemetrySection())
    assert not wants_traces(TelemetrySection(traces=False))
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not wants_traces(TelemetrySection())


async def _asked(rig: Rig, got: Collector) -> None:
    settings = Settings(telemetry=TelemetrySection(endpoint=got.url))
    async with telling(settings, rig.dispatcher):
        for headers in ({"traceparent": CALLER}, {}, {"Steelyard-Task": "fix-7"}):
            body = {"model": "scripted", "messages": [{"role": "user", "content": "hunter2"}]}
            body["model"] = rig.dispatcher.models()[0]
            async with rig.http.post("/v1/chat/completions", json=body, headers=headers) as sent:
                assert sent.status == 200, await sent.text()
        await rig.wait_for(TaskFinished)


async def test_a_gateway_tells_a_collector_what_its_log_says() -> None:
    with collector() as got:
        async with start_gateway() as rig:
            await _asked(rig, got)
            log = list(rig.events)
    # Tasks that requests name are open still, and have no span yet.
    expected = _by_id(list(spans_of(log)))
    open_tasks = {span_id_of(TRACE), span_id_of("fix-7")}
    assert _by_id(got.spans) == {k: v for k, v in expected.items() if k not in open_tasks}
    (step,) = [one for one in got.spans if one.parent_span_id == "00f067aa0ba902b7"]
    assert step.trace_id == TRACE
    assert "hunter2" not in repr(got.spans)
    assert {names.OPERATION_DURATION, names.TOKEN_USAGE, names.COST_METRIC} <= set(got.metrics)
    points = got.metrics[names.OPERATION_DURATION].histogram.data_points
    assert sum(point.count for point in points) == 3


@pytest.mark.parametrize("kept", [True, False])
async def test_an_endpoint_goes_on_with_the_trace(kept: bool) -> None:
    async with start_gateway() as upstream:
        model = upstream.dispatcher.models()[0]
        pool = OpenAiEndpointPool([upstream.server.base_url], [model])
        await pool.start()
        try:
            async with start_gateway(pool, GatewaySettings(traced=kept), model=model) as front:
                body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
                headers = {"traceparent": CALLER}
                path = "/v1/chat/completions"
                async with front.http.post(path, json=body, headers=headers) as sent:
                    assert sent.status == 200, await sent.text()
        finally:
            await pool.close()
        seen = [one.step.trace_parent for one in upstream.events if isinstance(one, StepPlaced)]
    below = span_id_of(TRACE, 0) if kept else "00f067aa0ba902b7"
    assert seen == [f"00-{TRACE}-{below}-01"]

import json
from pathlib import Path

import pytest

from steelyard.domain.workload import WorkloadTask
from steelyard.errors import WorkloadError
from steelyard.store.imports.mapped import mapping_of
from steelyard.store.imports.read import import_workload


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _attribute(key: str, value: str | int) -> dict[str, object]:
    # 64-bit integers are text in OTLP's JSON.
    kind = {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}
    return {"key": key, "value": kind}


def _span(
    name: str, start_ms: int, end_ms: int, *attributes: dict[str, object]
) -> dict[str, object]:
    return {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": f"eee19b7ec3c1b{start_ms:03d}",
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(1_700_000_000_000_000_000 + start_ms * 1_000_000),
        "endTimeUnixNano": str(1_700_000_000_000_000_000 + end_ms * 1_000_000),
        "attributes": list(attributes),
    }


@pytest.fixture
def otlp(tmp_path: Path) -> Path:
    chat = (_attribute("gen_ai.operation.name", "chat"), _attribute("gen_ai.request.model", "m"))
    spans = [
        _span("invoke_agent", 0, 900, _attribute("gen_ai.operation.name", "invoke_agent")),
        _span(
            "chat m", 0, 200, *chat,
            _attribute("gen_ai.usage.input_tokens", 1000),
            _attribute("gen_ai.usage.output_tokens", 40),
        ),
        _span(
            "execute_tool shell", 200, 500,
            _attribute("gen_ai.operation.name", "execute_tool"),
            _attribute("gen_ai.tool.name", "shell"),
        ),
        _span(
            "chat m", 600, 900, *chat,
            _attribute("gen_ai.usage.input_tokens", 1100),
            _attribute("gen_ai.usage.output_tokens", 60),
            _attribute("gen_ai.usage.cache_read.input_tokens", 900),
        ),
    ]  # fmt: skip
    request = {
        "resourceSpans": [
            {
                "resource": {"attributes": [_attribute("service.name", "coder")]},
                "scopeSpans": [{"scope": {"name": "s"}, "spans": spans}],
            }
        ]
    }
    return _write(tmp_path / "spans.jsonl", json.dumps(request) + "\n")


def test_otlp_spans_become_a_task_with_its_tool_and_the_gap_between(otlp: Path) -> None:
    read = import_workload(otlp)
    (task,) = read.workload.tasks
    assert task.agent == "coder"
    assert [step.kind for step in task.steps] == ["llm", "tool", "human", "llm"]
    assert [step.parents for step in task.steps] == [(), (0,), (1,), (2,)]
    assert task.steps[1].think_or_tool_s == pytest.approx(0.3)
    assert task.steps[2].think_or_tool_s == pytest.approx(0.1)
    assert (task.steps[3].prompt_tokens, task.steps[3].cached_tokens) == (1100, 900)
    assert task.steps[3].shared_prefix_tokens == 1000
    assert read.report.skipped == {"span that is neither a call nor a tool": 1}
    assert read.report.missing["cpu_s"] == 1
    assert any("repeat all of it" in one for one in read.report.assumed)


def _spend(number: int, start: str, end: str, **more: object) -> dict[str, object]:
    return {
        "request_id": f"chatcmpl-{number}", "call_type": "acompletion", "api_key": "",
        "spend": 0.001, "total_tokens": 120, "prompt_tokens": 100, "completion_tokens": 20,
        "startTime": start, "endTime": end, "model": "gpt-4o", "user": "", "metadata": {},
        "cache_hit": "False", **more,
    }  # fmt: skip


def test_litellm_sessions_are_tasks_and_cached_answers_are_left_out(tmp_path: Path) -> None:
    rows = [
        _spend(1, "2026-11-23T10:00:00Z", "2026-11-23T10:00:02Z", session_id="s", end_user="app"),
        _spend(2, "2026-11-23T10:00:02Z", "2026-11-23T10:00:03Z", session_id="s"),
        _spend(3, "2026-11-23 10:01:00.000", "2026-11-23 10:01:01.500"),
        _spend(4, "2026-11-23T10:02:00Z", "2026-11-23T10:02:00Z", cache_hit="True"),
    ]
    read = import_workload(_write(tmp_path / "logs.json", json.dumps({"data": rows})))
    assert [len(task.steps) for task in read.workload.tasks] == [2, 1]
    assert [task.arrival_s for task in read.workload.tasks] == [0.0, 60.0]
    assert read.workload.tasks[0].agent == "app"
    assert read.workload.tasks[1].steps[0].recorded_s == pytest.approx(1.5)
    assert read.report.skipped == {"answered from the proxy's response cache": 1}


def test_langfuse_usage_details_add_cached_tokens_to_the_prompt(tmp_path: Path) -> None:
    common = {"traceId": "t", "startTime": "2026-11-23T10:00:00.000Z"}
    rows = [
        {"id": "a", "type": "AGENT", "name": "run", **common},
        {
            "id": "b", "type": "GENERATION", "name": "plan", "parentObservationId": "a",
            "endTime": "2026-11-23T10:00:01.000Z", "model": "m",
            "usageDetails": {"input": 30, "output": 5, "input_cached_tokens": 70}, **common,
        },
        {
            "id": "c", "type": "SPAN", "name": "search", "parentObservationId": "a",
            "traceId": "t", "startTime": "2026-11-23T10:00:01.000Z",
            "endTime": "2026-11-23T10:00:03.000Z",
        },
    ]  # fmt: skip
    (task,) = import_workload(_write(tmp_path / "o.json", json.dumps(rows))).workload.tasks
    assert [(step.kind, step.name) for step in task.steps] == [("llm", "plan"), ("tool", "search")]
    assert (task.steps[0].prompt_tokens, task.steps[0].output_tokens) == (100, 5)
    assert task.steps[1].parents == (0,)


def test_azure_csv_rows_are_tasks_of_one_call(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    tasks = import_workload(_write(tmp_path / "azure.csv", text)).workload.tasks
    assert [task.steps[0].prompt_tokens for task in tasks] == [374, 396]
    assert tasks[1].arrival_s == pytest.approx(4.314579)


def test_mooncake_hash_chains_tell_shared_prefixes(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 1100, "output_length": 9, "hash_ids": [1, 2, 3]},
        {"timestamp": 3000, "input_length": 1500, "output_length": 9, "hash_ids": [1, 2, 4]},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    tasks = import_workload(_write(tmp_path / "mooncake.jsonl", text)).workload.tasks
    assert [task.arrival_s for task in tasks] == [0.0, 3.0]
    assert [task.steps[0].shared_prefix_tokens for task in tasks] == [0, 1024]


def test_a_result_of_vllms_benchmark_is_read_and_failures_left_out(tmp_path: Path) -> None:
    result = {
        "model_id": "m", "request_throughput": 2.0, "input_lens": [10, 20, 30],
        "output_lens": [3, 3, 0], "ttfts": [0.1, 0.2, 0.0], "itls": [[0.1, 0.1], [0.2, 0.2], []],
        "errors": ["", "", "timeout"],
    }  # fmt: skip
    read = import_workload(_write(tmp_path / "bench.json", json.dumps(result)))
    steps: list[WorkloadTask] = list(read.workload.tasks)
    assert [task.arrival_s for task in steps] == [0.0, 0.5]
    assert steps[1].steps[0].recorded_s == pytest.approx(0.6)
    assert read.report.skipped == {"failed request": 1}


def test_a_plain_table_is_read_with_a_mapping(tmp_path: Path) -> None:
    text = "who,t,in_tok,out_tok\na,0.0,100,5\na,2.0,150,7\nb,1.0,80,1\n"
    mapping = "task_id=who,start_s=t,prompt_tokens=in_tok,output_tokens=out_tok"
    read = import_workload(_write(tmp_path / "t.csv", text), mapping=mapping)
    assert {task.task_id: len(task.steps) for task in read.workload.tasks} == {"a": 2, "b": 1}
    assert read.report.missing["model"] == 3


def test_steps_that_begin_while_others_run_begin_when_they_did(tmp_path: Path) -> None:
    rows = ((0.0, 10.0), (4.0, 5.0), (10.0, 100.0), (50.0, 60.0), (100.0, 101.0))
    text = "task_id,start_s,end_s\n" + "".join(f"t,{start},{end}\n" for start, end in rows)
    read = import_workload(_write(tmp_path / "t.csv", text), form="csv")
    ends_s: dict[int, float] = {}
    begun_s: list[float] = []
    for step in read.workload.tasks[0].steps:
        start_s = max((ends_s[parent] for parent in step.parents), default=0.0)
        ends_s[step.step_id] = start_s + (step.recorded_s or 0.0)
        if step.kind == "llm":
            begun_s.append(start_s)
    assert begun_s == [start for start, _ in rows]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("t,in_tok\n0,1\n1,many\n", r"row 2, column in_tok is 'many'; it must be a whole number"),
        ("t,in_tok\nsoon,1\n", r"row 1, column t is 'soon', which is no time; write RFC 3339"),
        ("t,in_tok\nnan,1\n", r"row 1, column t is 'nan', which is no time; write RFC 3339"),
        ("t,tokens\n0,1\n", r"has no column 'in_tok' for prompt_tokens; it has t, tokens"),
    ],
)
def test_a_bad_row_is_named_with_column_value_and_cure(
    tmp_path: Path, text: str, told: str
) -> None:
    path = _write(tmp_path / "bad.csv", text)
    with pytest.raises(WorkloadError, match=told) as caught:
        import_workload(path, mapping="start_s=t,prompt_tokens=in_tok")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_format_lists_the_fields_and_what_to_do(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.json", '[{"a": 1}]')
    with pytest.raises(
        WorkloadError, match=r"not known from its fields \(a\); name it with --from"
    ):
        import_workload(path)
    with pytest.raises(WorkloadError, match="did you mean otlp"):
        import_workload(path, form="oltp")


def test_a_mapping_of_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(WorkloadError, match="did you mean prompt_tokens"):
        mapping_of("promt_tokens=x")

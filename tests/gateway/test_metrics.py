"""Metrics are a fold of the log, in a form that Prometheus reads."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.conftest import Start

from steelyard.gateway.prometheus import Family

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
SAMPLE = re.compile(r'[a-z_0-9]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+0-9.einf]+')


async def test_a_request_shows_up_in_every_metric_of_its_pool(start: Start) -> None:
    async with start() as rig:
        async with rig.http.post("/v1/chat/completions", json=BODY) as response:
            cost_usd = float(response.headers["steelyard-cost-usd"])
        async with rig.http.get("/metrics") as response:
            assert response.content_type == "text/plain"
            lines = (await response.text()).splitlines()
    assert all(line.startswith("# ") or SAMPLE.fullmatch(line) for line in lines)
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    pool = '{pool="lab"}'
    assert samples[f"steelyard_num_requests_running{pool}"] == "0"
    assert samples[f"steelyard_num_requests_waiting{pool}"] == "0"
    assert samples[f"steelyard_replicas_up{pool}"] == "1"
    assert samples[f"steelyard_prompt_tokens_total{pool}"] == "7"
    assert samples[f"steelyard_generation_tokens_total{pool}"] == "2"
    assert samples['steelyard_attempts_total{pool="lab",outcome="ok"}'] == "1"
    assert samples[f"steelyard_time_to_first_token_seconds_count{pool}"] == "1"
    assert samples[f"steelyard_e2e_request_latency_seconds_count{pool}"] == "1"
    assert samples['steelyard_tasks_total{status="succeeded"}'] == "1"
    assert float(samples[f"steelyard_cost_usd_total{pool}"]) == cost_usd
    http = 'steelyard_http_requests_total{path="/v1/chat/completions",status="200"}'
    assert samples[http] == "1"


async def test_tasks_that_leave_without_an_event_are_open_no_more(start: Start) -> None:
    async with start() as rig:

        async def shown() -> str:
            async with rig.http.get("/metrics") as response:
                lines = (await response.text()).splitlines()
            (line,) = (one for one in lines if one.startswith("steelyard_tasks_open "))
            return line

        for name in ("stays", "leaves"):
            headers = {"Steelyard-Task": name}
            async with rig.http.post("/v1/chat/completions", json=BODY, headers=headers):
                pass
        assert await shown() == "steelyard_tasks_open 2"
        rig.dispatcher.drop_task("leaves")
        assert await shown() == "steelyard_tasks_open 1"


async def test_paths_that_clients_make_up_are_counted_under_one_name(start: Start) -> None:
    async with start() as rig:
        for number in range(3):
            async with rig.http.get(f"/made/up/{number}"):
                pass
        async with rig.http.get("/metrics") as response:
            told = await response.text()
    assert 'steelyard_http_requests_total{path="other",status="404"} 3' in told


@given(st.text(max_size=20))
def test_any_label_stays_on_its_line(value: str) -> None:
    family = Family("x_total", "counter", "Told.")
    family.add(1.0, name=value)
    [sample] = list(family.lines())[2:]
    assert "\n" not in sample
    assert sample.endswith('"} 1')


@given(st.lists(st.floats(min_value=0.0, max_value=100.0), max_size=30))
def test_buckets_are_cumulative_and_include_their_bound(values: list[float]) -> None:
    family = Family("x_seconds", "histogram", "Told.", (0.5, 1.0, 10.0))
    family.observe(1.0)
    for value in values:
        family.observe(value)
    samples = dict(line.rsplit(" ", 1) for line in list(family.lines())[2:])
    for bound in ("0.5", "1", "10"):
        expected = sum(value <= float(bound) for value in [1.0, *values])
        assert samples[f'x_seconds_bucket{{le="{bound}"}}'] == str(expected)
    assert samples['x_seconds_bucket{le="+Inf"}'] == str(len(values) + 1)

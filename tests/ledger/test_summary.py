import math

import numpy as np
from tests.ledger.books import Books

from steelyard.domain.events import Usage
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.summary import summarize_steps


def test_steps_are_summarized_by_agent_step_and_pool() -> None:
    books = Books()
    for agent, name, pool in (
        ("b", "x", "llm"),
        ("a", "y", "tools"),
        ("a", "x", "vendor"),
        ("a", "x", "llm"),
    ):
        step_id = len(books.events)
        books.attempt("t", step_id, times_s=(0.0, 0.0, 1.0), pool=pool, agent=agent, name=name)
    lines = summarize_steps(Ledger.of(books.events))
    assert [(line.agent, line.step, line.pool, line.kind) for line in lines] == [
        ("a", "x", "llm", "llm"),
        ("a", "x", "vendor", "llm"),
        ("a", "y", "tools", "tool"),
        ("b", "x", "llm", "llm"),
    ]


def test_latencies_are_those_of_attempts_that_went_well_queueing_included() -> None:
    books = Books()
    latencies_s = [1.0, 2.0, 3.0, 4.0, 10.0]
    for step_id, latency_s in enumerate(latencies_s):
        usage = Usage(
            input_tokens=10,
            cached_tokens=4,
            output_tokens=2,
            start_to_first_token_s=0.25,
        )
        times_s = (5.0, 5.5, 5.0 + latency_s)
        books.attempt("t", step_id, times_s=times_s, usage=usage, cost_usd=0.1)
    failed = Usage(input_tokens=10, output_tokens=1)
    books.attempt("t", 9, times_s=(0.0, 0.0, 99.0), outcome="failed", usage=failed, cost_usd=0.5)
    books.attempt("t", 10, times_s=(0.0, None, 99.0), outcome="cancelled")
    (line,) = summarize_steps(Ledger.of(books.events))
    assert (line.count, line.failed) == (5, 2)
    assert line.latency_p50_s == 3.0
    assert line.latency_p95_s == float(np.percentile(latencies_s, 95))
    # Half a second in the queue counts.
    assert line.ttft_p50_s == 0.75
    assert (line.input_tokens, line.cached_tokens, line.output_tokens) == (60, 20, 11)
    assert line.cost_usd == math.fsum([0.1] * 5 + [0.5])


def test_a_step_that_never_went_well_has_no_latency() -> None:
    books = Books()
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), outcome="failed")
    (line,) = summarize_steps(Ledger.of(books.events))
    assert (line.count, line.failed, line.ttft_p50_s) == (0, 1, None)
    assert math.isnan(line.latency_p50_s)


def test_tools_have_no_first_token() -> None:
    books = Books()
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), pool="tools")
    assert summarize_steps(Ledger.of(books.events))[0].ttft_p50_s is None

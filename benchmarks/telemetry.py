"""What does telemetry cost, in CPU per request? Off the path of requests, but for the first line.

python benchmarks/telemetry.py
"""

import datetime as dt
import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from steelyard.config.environment import machine_description
from steelyard.domain.decision import Decision
from steelyard.domain.events import Event, RequestServed, Usage
from steelyard.domain.task import LlmCall, Step
from steelyard.telemetry.fold import SpanFold, spans_of
from steelyard.telemetry.live import LiveTelemetry
from steelyard.telemetry.sdk import readable, resource

REQUESTS = 5_000
ROUNDS = 3


def requests() -> list[Event]:
    """A log of requests that name nothing: three spans each."""
    decision = Decision(
        pool="p",
        replica=0,
        predicted_wait_s=0.0,
        predicted_ttft_s=0.1,
        predicted_finish_s=1.0,
        predicted_cached_tokens=0,
        predicted_output_tokens=10.0,
        predicted_cost_usd=0.001,
        bid_usd_per_hour=1.0,
        slack_s=None,
        policy="cheapest_feasible",
        reason="cheapest",
        verdicts=(),
    )
    call = LlmCall(model="m", input_tokens=100, max_output_tokens=64)
    return [
        RequestServed(
            t_s=number + 0.5,
            placed_s=float(number),
            step=Step(task_id=f"t{number}", step_id=0, agent="a", name="chat", call=call),
            decision=decision,
            outcome="ok",
            usage=Usage(input_tokens=100, output_tokens=20, wall_s=0.5),
            cost_usd=0.001,
        )
        for number in range(REQUESTS)
    ]


def measure(what: str, work: Callable[[], object]) -> None:
    """Print the CPU time per request, in microseconds, of each round."""
    taken_us: list[float] = []
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        work()
        taken_us.append((time.process_time() - begun_s) / REQUESTS * 1e6)
    print(f"{what:44} {' '.join(f'{one:8.2f}' for one in taken_us)} us CPU per request")


def main() -> None:
    """Measure each part."""
    print(
        f"{machine_description()}, {dt.datetime.now(dt.UTC):%Y-%m-%d}, no seed, {REQUESTS} requests"
    )
    log, told_by = requests(), resource()
    spans = list(spans_of(log))

    def hear() -> None:
        live = LiveTelemetry(SpanFold(), None, None)
        for event in log:
            live.hear(event)

    measure("on the path of a request: queue the event", hear)
    measure("beside it: fold events to spans", lambda: list(spans_of(log)))
    measure(
        "beside it: the SDK's spans as protobuf",
        lambda: encode_spans([readable(one, told_by) for one in spans]).SerializeToString(),
    )


if __name__ == "__main__":
    main()

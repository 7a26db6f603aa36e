"""Write deploy/grafana/steelyard.json: a Grafana dashboard on the metrics of /metrics.

Built with Grafana's own builders, so that what is written fits its schema. A test fails when the
file is stale, or asks for a metric that there is not.

    python scripts/grafana_dashboard.py
"""

from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphGradientMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

PATH = Path(__file__).parents[1] / "deploy" / "grafana" / "steelyard.json"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_POOLS = 'pool=~"$pool"'
_HEIGHT, _THIRD, _HALF, _SIXTH = 8, 8, 12, 4


def _query(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend)


def _rate(metric: str, by: str = "pool", labels: str = _POOLS) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantile(share: float, metric: str) -> str:
    inner = f"sum by (le, pool) (rate({metric}_bucket{{{_POOLS}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {inner})"


def _panel(title: str, unit: str, told: str, span: int = _THIRD) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(title)
        .description(told)
        .unit(unit)
        .datasource(_SOURCE)
        .height(_HEIGHT)
        .span(span)
        .fill_opacity(8)
        .gradient_mode(GraphGradientMode.OPACITY)
        .tooltip(common.VizTooltipOptions())
        .min(0)
    )


def _figure(title: str, unit: str, expr: str) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .unit(unit)
        .datasource(_SOURCE)
        .height(_HEIGHT // 2)
        .span(_SIXTH)
        .with_target(_query(expr, ""))
    )


def _figures() -> list[stat.Panel]:
    ended = "sum(increase(steelyard_tasks_total[$__range]))"
    good = 'sum(increase(steelyard_tasks_total{status="succeeded"}[$__range]))'
    cost = f"sum(increase(steelyard_cost_usd_total{{{_POOLS}}}[$__range]))"
    cached = f"sum(increase(steelyard_prompt_tokens_cached_total{{{_POOLS}}}[$__range]))"
    prompt = f"sum(increase(steelyard_prompt_tokens_total{{{_POOLS}}}[$__range]))"
    return [
        _figure("Tasks open", "short", "sum(steelyard_tasks_open)"),
        _figure("Tasks that succeeded", "percentunit", f"{good} / {ended}"),
        _figure("Cost", "currencyUSD", cost),
        _figure("Cost per task", "currencyUSD", f"{cost} / {ended}"),
        _figure("Prompt tokens from caches", "percentunit", f"{cached} / {prompt}"),
        _figure("Replicas up", "short", f"sum(steelyard_replicas_up{{{_POOLS}}})"),
    ]


def _work() -> list[timeseries.Panel]:
    running = _panel("Attempts that run", "short", "By pool.")
    running.with_target(
        _query(f"sum by (pool) (steelyard_num_requests_running{{{_POOLS}}})", "{{pool}}")
    )
    waiting = _panel("Steps that wait", "short", "Placed, and not started, by pool.")
    waiting.with_target(
        _query(f"sum by (pool) (steelyard_num_requests_waiting{{{_POOLS}}})", "{{pool}}")
    )
    replicas = _panel("Replicas up", "short", "By pool.")
    replicas.with_target(_query(f"sum by (pool) (steelyard_replicas_up{{{_POOLS}}})", "{{pool}}"))
    return [running, waiting, replicas]


def _latency() -> list[timeseries.Panel]:
    panels: list[timeseries.Panel] = []
    for title, metric in (
        ("Time to first token", "steelyard_time_to_first_token_seconds"),
        ("Time to the end of an attempt", "steelyard_e2e_request_latency_seconds"),
    ):
        panel = _panel(title, "s", "From placement, queueing included.", _HALF)
        for share, name in ((0.5, "p50"), (0.95, "p95")):
            panel.with_target(_query(_quantile(share, metric), f"{name} {{{{pool}}}}"))
        panels.append(panel)
    return panels


def _money() -> list[timeseries.Panel]:
    cost = _panel("Cost per hour", "currencyUSD", "Of ended attempts, by pool.")
    cost.with_target(_query(f"3600 * {_rate('steelyard_cost_usd_total')}", "{{pool}}"))
    tokens = _panel("Tokens per second", "short", "Prompt and generated tokens, by pool.")
    tokens.with_target(_query(_rate("steelyard_prompt_tokens_total"), "prompt {{pool}}"))
    tokens.with_target(_query(_rate("steelyard_generation_tokens_total"), "generated {{pool}}"))
    cached = _panel("Prompt tokens from caches", "percentunit", "Share, by pool.").max(1)
    read, asked = "steelyard_prompt_tokens_cached_total", "steelyard_prompt_tokens_total"
    share = f"{_rate(read)} / {_rate(asked)}"
    cached.with_target(_query(share, "{{pool}}"))
    return [cost, tokens, cached]


def _ends() -> list[timeseries.Panel]:
    attempts = _panel("Attempts per second by outcome", "ops", "ok, failed or cancelled.")
    attempts.with_target(
        _query(_rate("steelyard_attempts_total", "pool, outcome"), "{{pool}} {{outcome}}")
    )
    refused = _panel("Steps refused per second", "ops", "By what was missing.")
    refused.with_target(_query(_rate("steelyard_steps_refused_total", "cause", ""), "{{cause}}"))
    http = _panel("HTTP requests per second", "reqps", "By path and status.")
    http.with_target(
        _query(_rate("steelyard_http_requests_total", "path, status", ""), "{{path}} {{status}}")
    )
    hedges = _panel("Second attempts per second", "ops", "Begun beside a late one, and those lost.")
    for name in ("steelyard_hedges_total", "steelyard_hedged_away_total"):
        hedges.with_target(_query(_rate(name, "pool"), f"{{{{pool}}}} {name.split('_')[1]}"))
    return [attempts, refused, hedges, http]


def board() -> str:
    """The dashboard as JSON, as Grafana imports it."""
    built = (
        dashboard.Dashboard("Steelyard")
        .uid("steelyard")
        .description("Agents on mixed fleets: load, latency, cost and outcomes by pool.")
        .tags(["steelyard", "llm"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Source").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("pool")
            .label("Pool")
            .datasource(_SOURCE)
            .query("label_values(steelyard_replicas_up, pool)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for figure in _figures():
        built.with_panel(figure)
    for title, panels in (
        ("Work", _work()),
        ("Latency", _latency()),
        ("Money and tokens", _money()),
        ("Outcomes", _ends()),
    ):
        built.with_row(dashboard.Row(title))
        for panel in panels:
            built.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


if __name__ == "__main__":
    PATH.write_text(board(), encoding="utf-8")

"""Which unit has a quantity? Its name says so; docs/glossary.md has the law."""

# Longest first: `_usd_per_hour` ends in `_per_hour` as well.
_SUFFIXES = (
    ("_usd_per_million", "USD per million tokens"),
    ("usd_per_hour_by_hour", "USD per hour"),
    ("_usd_per_hour", "USD per hour"),
    ("usd_per_day", "USD per day"),
    ("usd_per_kwh", "USD per kWh"),
    ("usd_per_hour", "USD per hour"),
    ("_s_per_token", "s per token"),
    ("_per_token", "USD per token"),
    ("_gb_per_s", "10^9 bytes per s"),
    ("_tokens_per_s", "tokens per s"),
    ("_per_hour", "per hour"),
    ("_per_s", "per s"),
    ("_tokens", "tokens"),
    ("_bytes", "bytes"),
    ("_frac", "fraction of 1"),
    ("_share_cap", "fraction of 1"),
    ("_usd", "USD"),
    ("_mb", "10^6 bytes"),
    ("_gb", "10^9 bytes"),
    ("per_s", "s"),
    ("_s", "s"),
)
# Numbers that are counts, ratios, or names.
_PLAIN = {
    "attempt": "number",
    "concurrency_cap": "streams",
    "cores": "cores",
    "day": "ratio",
    "fence": "number",
    "growth_factor": "ratio",
    "machines": "machines",
    "max_replicas": "machines",
    "max_running": "tasks or steps",
    "min_replicas": "machines",
    "per_task": "per task",
    "port": "TCP port",
    "processes": "processes",
    "pue": "ratio",
    "quantile": "fraction of 1",
    "relative_speed": "ratio",
    "replica": "number",
    "replicas": "engines",
    "replicas_by_hour": "machines",
    "service_factor": "ratio",
    "simulated_seed": "seed",
    "simulated_service_factor": "ratio",
    "simulated_tasks": "tasks",
    "slots": "calls",
    "staffing_beta": "ratio",
    "starts": "tasks or steps",
    "step_id": "number",
    "step_starts": "steps",
    "stock": "machines",
}


def unit(name: str) -> str:
    """Which unit has a quantity of this name?

    Args:
        name: A field's name.

    Returns:
        The unit in words; empty where the name says none.

    >>> unit("usd_per_hour"), unit("drain_s"), unit("host")
    ('USD per hour', 's', '')
    """
    if name in _PLAIN:
        return _PLAIN[name]
    return next((told for suffix, told in _SUFFIXES if name.endswith(suffix)), "")

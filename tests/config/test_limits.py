from pathlib import Path

import pytest

from steelyard.config.settings import load_settings
from steelyard.domain.agent import AgentLimit
from steelyard.domain.pool import PoolLimit
from steelyard.errors import ConfigError

_POOL = '[pools.local]\nkind = "embedded"\n'


def _load(folder: Path, text: str) -> object:
    path = folder / "steelyard.toml"
    path.write_text(_POOL + text, encoding="utf-8")
    return load_settings(path).limits


def test_limits_of_agents_and_pools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "steelyard.toml"
    agents = "[limits.agents.a]\nmax_running = 2\nstep_starts = 3\n"
    told = f"{agents}[limits.pools.local]\nstarts = 60\nper_s = 60\n"
    path.write_text(_POOL + told, encoding="utf-8")
    limits = load_settings(path).limits
    assert limits.agents["a"].agent_limit() == AgentLimit(max_running=2, step_starts=3)
    assert limits.pools["local"].pool_limit() == PoolLimit(starts=60, per_s=60.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[limits.pools.locl]\nstarts = 1\n",
            "limits.pools.locl is of no pool; did you mean",
        ),
        ("[limits.agents.a]\nmax_running = 0\n", "limits.agents.a.max_running is 0"),
        ("[limits.pools.local]\nstep_starts = 1\n", "step_starts is for agents"),
        ("[limits.agents.a]\nstep_starts = 0\n", "limits.agents.a.step_starts is 0"),
        ("[limits.agents.a]\nper_s = -1\n", "limits.agents.a.per_s is -1"),
        (
            "[limits.agents.ok]\nstarts = 1\n[limits.agents.'my b']\nstarts = 'x'\n",
            "limits.agents.my b.starts is 'x': Expected int",
        ),
        ("[limits.providers.p]\nusd_per_day = '1'\n", "limits.providers.p.usd_per_day is '1'"),
        ("[limits.providers.p]\nusd_per_day = inf\n", "must be finite and greater than 0"),
        ("[limits.agents.a]\nmax_runing = 1\n", "max_runing"),
        ("[limits.providers.aws]\n", "limits.providers.aws is empty; give usd_per_hour or"),
        ("[limits.providers.aws]\nusd_per_day = 0\n", "limits.providers.aws.usd_per_day is 0"),
        ("[limits.providers.aws]\nusd_per_hour = inf\n", "usd_per_hour is inf"),
        ("[limits.agnts.a]\nmax_running = 1\n", "did you mean agents"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        _load(tmp_path, text)

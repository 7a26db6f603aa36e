from collections.abc import Callable
from pathlib import Path

import pytest

from steelyard.config.pool_settings import (
    CurveSettings,
    EmbeddedPoolSettings,
    EndpointPoolSettings,
    TokenPriceSettings,
    ToolPoolSettings,
)
from steelyard.config.settings import GatewaySection, Settings, load_settings
from steelyard.errors import ConfigError

POOL = '[pools.local]\nkind = "embedded"\n'
ENDPOINT = '[pools.far]\nkind = "endpoint"\nbase_urls = ["http://h/v1"]\nmodels = ["m"]\n'
PRICED = ENDPOINT + "usd_per_hour = 1.0\n"

Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str) -> Settings:
        path = tmp_path / "steelyard.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path)

    return write_and_load


def test_a_pool_is_enough(load: Load, tmp_path: Path) -> None:
    settings = load(POOL)
    assert settings.pools == {"local": EmbeddedPoolSettings()}
    assert settings.gateway == GatewaySection()
    assert settings.store.path == tmp_path / "steelyard.db"
    assert settings.policy.name == "cheapest_feasible"


def test_every_kind_of_pool_is_read(load: Load) -> None:
    settings = load(
        POOL
        + "replicas = 3\nmachine_frac = 0.25\n"
        + '[pools.tools]\nkind = "tools"\ncores = 2\n'
        + ENDPOINT
        + "[pools.far.token_price]\ninput_usd_per_million = 1\noutput_usd_per_million = 2.5\n"
        + "[pools.far.curve]\nitl_base_s = 0.5\n"
    )
    assert settings.pools == {
        "local": EmbeddedPoolSettings(replicas=3, machine_frac=0.25),
        "tools": ToolPoolSettings(cores=2.0),
        "far": EndpointPoolSettings(
            base_urls=("http://h/v1",),
            models=("m",),
            token_price=TokenPriceSettings(input_usd_per_million=1.0, output_usd_per_million=2.5),
            curve=CurveSettings(itl_base_s=0.5),
        ),
    }


def test_relative_paths_are_meant_from_the_folder_of_the_file(load: Load, tmp_path: Path) -> None:
    settings = load(
        '[gateway]\napi_keys_file = "keys.txt"\n[store]\npath = "logs/a.db"\n'
        + POOL
        + 'model_path = "models/m.gguf"\n'
    )
    pool = settings.pools["local"]
    assert isinstance(pool, EmbeddedPoolSettings)
    assert pool.model_path == tmp_path / "models/m.gguf"
    assert settings.gateway.api_keys_file == tmp_path / "keys.txt"
    assert settings.store.path == tmp_path / "logs/a.db"


def test_absolute_paths_stay_as_they_are(load: Load) -> None:
    assert load('[store]\npath = "/var/lib/a.db"\n' + POOL).store.path == Path("/var/lib/a.db")


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("gatway = 1\n" + POOL, "gatway", "gateway"),
        ("[gateway]\nprot = 1\n" + POOL, "gateway.prot", "port"),
        ("[store]\npaths = 'x'\n" + POOL, "store.paths", "path"),
        ("[policy]\nnam = 'x'\n" + POOL, "policy.nam", "name"),
        (POOL + "replica = 1\n", "pools.local.replica", "replicas"),
        ("[pools.t]\nkind='tools'\nslot=1\n", "pools.t.slot", "slots"),
        (PRICED + "base_url='x'\n", "pools.far.base_url", "base_urls"),
        (PRICED + "[pools.far.curve]\nitl_bas_s=1\n", "pools.far.curve.itl_bas_s", "itl_base_s"),
        (
            ENDPOINT + "[pools.far.token_price]\ninput_per_million=1\n",
            "pools.far.token_price.input_per_million",
            "input_usd_per_million",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(
    text: str, key: str, meant: str, load: Load
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert f"unknown key {key}; did you mean {meant}?" in str(caught.value)
    assert "steelyard.toml" in str(caught.value)


def test_an_unknown_key_like_no_other_is_refused_with_all_names(load: Load) -> None:
    with pytest.raises(
        ConfigError,
        match="unknown key zzz; allowed are aliases, dashboard, gateway, limits, policy",
    ):
        load("zzz = 1\n" + POOL)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gateway]\nport = 'x'\n" + POOL, "gateway.port is 'x': Expected int, got str"),
        ("[gateway]\nport = 70000\n" + POOL, "gateway.port is 70000; it must be 0 to 65535"),
        ("[gateway]\nport = -1\n" + POOL, "gateway.port is -1; it must be"),
        ("[gateway]\napi_keys_file = 3\n" + POOL, "gateway.api_keys_file is 3: Expected"),
        ("[gateway]\nmax_body_bytes = 0\n" + POOL, "gateway.max_body_bytes is 0; it must be"),
        ("gateway = 3\n" + POOL, "gateway is 3: Expected object, got int"),
        ("pools = 3\n", "pools is no table; write [pools.NAME]"),
        ("[pools]\nlocal = 3\n", "pools.local is no table; write [pools.local]"),
        ("[pools.a]\nreplicas = 1\n", "pools.a.kind is None; allowed are embedded, endpoint"),
        ("[pools.a]\nkind = 'embeded'\n", "pools.a.kind is embeded; did you mean embedded?"),
        ("[pools.a]\nkind = ['tools']\n", "pools.a.kind is ['tools']"),
        (POOL + "replicas = '2'\n", "pools.local.replicas is '2': Expected int, got str"),
        (POOL + "replicas = 1.5\n", "pools.local.replicas is 1.5: Expected int, got float"),
        (POOL + "replicas = 0\n", "pools.local.replicas is 0; it must be greater than 0"),
        (POOL + "replicas = -1\n", "pools.local.replicas is -1; it must be"),
        (POOL + "machine_frac = nan\n", "pools.local.machine_frac is nan; it must be"),
        ("[pools.t]\nkind = 'tools'\ncores = inf\n", "pools.t.cores is inf; it must be"),
        ("[pools.t]\nkind = 'tools'\nslots = 0\n", "pools.t.slots is 0; it must be"),
        ("[pools.f]\nkind = 'endpoint'\nmodels = ['m']\n", "pools.f: Object missing required"),
        (ENDPOINT, "pools.far has no price; give offering"),
        (PRICED + "api_key_env = 1\n", "pools.far.api_key_env is 1"),
        (PRICED + "arch = 'sparc'\n", "pools.far.arch is 'sparc': Invalid enum value"),
        (ENDPOINT + "usd_per_hour = -1\n", "pools.far.usd_per_hour is -1.0; it must be"),
        (
            PRICED.replace('["http://h/v1"]', "[]"),
            "pools.far.base_urls is empty; give the address",
        ),
        (
            PRICED.replace('["http://h/v1"]', '["h:80"]'),
            "pools.far.base_urls holds 'h:80'; it must start with http",
        ),
        (
            PRICED.replace('["http://h/v1"]', '["http://h/v1", 7]'),
            "pools.far.base_urls[1] is 7: Expected str, got int",
        ),
        (PRICED.replace('["m"]', "[]"), "pools.far.models is empty; name the models"),
        (
            PRICED + "[pools.far.curve]\nprefill_s_per_token = -0.1\n",
            "pools.far.curve.prefill_s_per_token is -0.1; it must be a finite number >= 0",
        ),
        (
            PRICED + "[pools.far.curve]\nitl_slope_s = -0.001\n",
            "pools.far.curve.itl_slope_s is -0.001; it must be a finite number >= 0",
        ),
        (
            ENDPOINT + "[pools.far.token_price]\ninput_usd_per_million = -1.0\n"
            "output_usd_per_million = 1.0\n",
            "pools.far.token_price.input_usd_per_million is -1.0; it must be a finite number >= 0",
        ),
        (
            PRICED + "[pools.far.curve]\ncontext_tokens = 0\n",
            "pools.far.curve.context_tokens is 0; it must be greater than 0",
        ),
        (
            ENDPOINT
            + "[pools.far.token_price]\ninput_usd_per_million=1\noutput_usd_per_million='x'\n",
            "pools.far.token_price.output_usd_per_million is 'x': Expected float, got str",
        ),
        (
            PRICED + "[pools.far.token_price]\ninput_usd_per_million=1\noutput_usd_per_million=1\n",
            "pools.far has two prices",
        ),
        ("", "declares no pools; add one"),
        ("[pools]\n", "declares no pools; add one"),
        ("port = = 1\n", "is not TOML: Invalid value (at line 1"),
        ("[gateway]\nport=1\n[gateway]\n", "is not TOML: "),
    ],
)
def test_a_wrong_value_is_named_by_file_key_and_value(
    text: str, told: str, load: Load, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"configuration {tmp_path / 'steelyard.toml'}")
    assert told in message
    assert "\n" not in message


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml does not exist; copy steelyard\.example"):
        load_settings(tmp_path / "gone.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[pools.caf\xe9]\n")
    with pytest.raises(ConfigError, match=r"latin\.toml cannot be read"):
        load_settings(path)


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ('url = "mysql://me:hush@h/d"', "no postgresql:// URL"),
        ('url = "postgresql://me:hush@h/d"', "holds a password"),
        ('url = "postgresql://me@h/d?password=hush"', "holds a password"),
        ('password_env = "HUSH"', "without"),
    ],
)
def test_a_store_without_secrets_in_it_is_asked_for(load: Load, store: str, told: str) -> None:
    with pytest.raises(ConfigError, match="store") as caught:
        load(f"[store]\n{store}\n{POOL}")
    assert told in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_store_may_be_a_database(load: Load) -> None:
    store = load(f'[store]\nurl = "postgresql://me@h:5433/d"\npassword_env = "P"\n{POOL}').store
    assert (store.url, store.password_env) == ("postgresql://me@h:5433/d", "P")

"""Keys are needed where they are set, compared by hash, and shown nowhere."""

import hashlib
import logging
from typing import Any

import openai
import pytest
from tests.gateway.conftest import Start

from steelyard.errors import ConfigError
from steelyard.gateway.settings import GatewaySettings

KEY = "sy-secret-42"
HASHED = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()


@pytest.mark.parametrize("configured", [KEY, HASHED])
async def test_a_key_is_needed_and_may_be_given_as_its_hash(start: Start, configured: str) -> None:
    async with start(settings=GatewaySettings(api_keys=("other", configured))) as rig:
        with pytest.raises(openai.AuthenticationError) as caught:
            await rig.openai.models.list()
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
        models = await rig.openai.with_options(api_key=KEY).models.list()
        assert [model.id for model in models.data] == ["scripted"]


async def test_anything_but_the_key_is_401(start: Start) -> None:
    wrong = ["", "Basic x", "Bearer", "Bearer  ", f"Bearer {KEY}x", HASHED, f"Bearer {HASHED}"]
    async with start(settings=GatewaySettings(api_keys=(HASHED,))) as rig:
        for sent in wrong:
            for path in ("/v1/models", "/metrics", "/api/tasks"):
                async with rig.http.get(path, headers={"Authorization": sent}) as response:
                    assert response.status == 401, sent


async def test_probes_need_no_key(start: Start) -> None:
    async with start(settings=GatewaySettings(api_keys=(KEY,))) as rig:
        for path in ("/healthz", "/readyz"):
            async with rig.http.get(path) as response:
                assert response.status == 200


async def test_keys_are_in_no_log_and_no_error(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = GatewaySettings(api_keys=(KEY,), access_log=True)
    wrong = "Bearer sy-wrong-key"
    async with start(settings=settings) as rig:
        async with rig.http.get("/v1/models", headers={"Authorization": wrong}) as response:
            told = await response.text()
        async with rig.http.get("/v1/nope", headers={"Authorization": f"Bearer {KEY}"}) as response:
            told += await response.text()
    told += caplog.text + repr(settings) + str(settings)
    assert KEY not in told
    assert "sy-wrong-key" not in told


async def test_without_keys_a_web_page_elsewhere_gets_nothing(start: Start) -> None:
    foreign = [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": "[bad"},
    ]
    async with start() as rig:
        for headers in foreign:
            async with rig.http.get("/v1/models", headers=headers) as response:
                assert response.status == 403, headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", ""])  # noqa: S104
def test_other_machines_may_not_call_without_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.host"):
        GatewaySettings(host=host)
    GatewaySettings(host=host, api_keys=(KEY,))


@pytest.mark.parametrize("keys", [("",), ("  ",), ("kéy",)])
def test_an_unusable_key_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="api_keys"):
        GatewaySettings(api_keys=keys)


async def test_a_malformed_hash_is_refused_at_start(start: Start) -> None:
    settings: Any = GatewaySettings(api_keys=("sha256:123",))
    with pytest.raises(ConfigError, match="64 hex digits"):
        async with start(settings=settings):
            pass

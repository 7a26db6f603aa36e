"""A real gateway keeps a spend cap: plain requests, a restart, and a reload that raises it."""

import json
from pathlib import Path
from typing import Any

import aiohttp
from tests.cli.test_reload import Process, Upstream, gateway, upstreams

STORE = '[store]\npath = "events.db"\n'
# A million tokens for a thousand dollars: an answer of 3 tokens to 5 costs 0.008 USD.
PRICE = "token_price = { input_usd_per_million = 1000.0, output_usd_per_million = 1000.0 }\n"


def vendor(upstream: Upstream) -> str:
    return (
        f'[pools.{upstream.name}]\nkind = "endpoint"\nbase_urls = ["{upstream.url}"]\n'
        f'models = ["m"]\nprovider = "vendor"\n{PRICE}'
    )


def cap(usd: float) -> str:
    return f"{STORE}[limits.providers.vendor]\nusd_per_day = {usd}\n"


async def spend(running: Process, most: int) -> tuple[int, dict[str, Any], str]:
    """Ask until a request is refused: how many were served, the error, and its Retry-After."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    url = f"{running.base_url}/chat/completions"
    async with aiohttp.ClientSession() as http:
        for served in range(most):
            async with http.post(url, json=body) as response:
                told = json.loads(await response.text())
                if response.status != 200:
                    assert response.status == 429, told
                    return served, told["error"], response.headers["Retry-After"]
    return most, {}, ""


async def metric(running: Process, name: str) -> float:
    url = f"{running.base_url.removesuffix('/v1')}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        text = await response.text()
    found = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return float(found[0].rpartition(" ")[2])


async def test_a_gateway_spends_no_more_than_the_cap_and_knows_after_a_restart(
    tmp_path: Path,
) -> None:
    async with upstreams("far", hold_s=0.0) as up:
        far = up["far"]
        async with gateway(tmp_path, vendor(far), more=cap(0.1)) as running:
            served, error, retry_after = await spend(running, 100)
            assert 0 < served < 13
            assert error["code"] == "spend_cap"
            assert "far: over cap" in error["message"]
            assert 0 < int(retry_after) <= 86_400
            spent_usd = await metric(running, "steelyard_provider_spend_usd")
            assert 0.0 < spent_usd <= 0.1
            assert await metric(running, "steelyard_provider_cap_usd") == 0.1
            assert await running.stop() == 0
        async with gateway(tmp_path, vendor(far), more=cap(0.1)) as again:
            assert (await spend(again, 100))[0] == 0
            again.configure(vendor(far), more=cap(1.0))
            assert (await again.reload())[1].endswith("changed far\n")
            assert await spend(again, 3) == (3, {}, "")
            assert await again.stop() == 0


async def test_a_cap_of_no_provider_stops_the_start(tmp_path: Path) -> None:
    async with upstreams("far") as up:
        told = cap(1.0).replace("providers.vendor", "providers.vendr")
        try:
            async with gateway(tmp_path, vendor(up["far"]), more=told):
                raise RuntimeError("it started")
        except AssertionError as error:
            assert "limits.providers.vendr is the provider of no pool" in str(error)  # noqa: PT017

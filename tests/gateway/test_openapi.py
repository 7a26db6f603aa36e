"""/openapi.json describes what is served, and nothing else."""

from jsonschema import Draft202012Validator
from tests.gateway.conftest import Start

from steelyard.gateway.openapi import openapi_document
from steelyard.gateway.settings import GatewaySettings


async def test_every_path_of_the_description_is_served(start: Start) -> None:
    async with start() as rig:
        async with rig.http.get("/openapi.json") as response:
            document = await response.json()
            assert response.status == 200
        for path, operations in document["paths"].items():
            for method in operations:
                url = path.replace("{model}", "scripted").replace("{response_id}", "none")
                async with rig.http.request(method, url, json={}) as response:
                    assert str(response.status) in operations[method]["responses"], path
                    assert (response.status == 404) == url.endswith("/none"), path
        async with rig.http.post("/v1/nothing", json={}) as response:
            told = (await response.json())["error"]["message"]
        for path in document["paths"]:
            assert not path.startswith("/v1/") or "{" in path or path in told


async def test_a_key_is_asked_for(start: Start) -> None:
    closed = GatewaySettings(api_keys=("k",))
    async with start(settings=closed) as rig, rig.http.get("/openapi.json") as response:
        assert response.status == 401


def test_the_schemas_are_valid_and_whole() -> None:
    document = openapi_document("1")
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = str(document)
    for name in text.split("#/components/schemas/")[1:]:
        assert name.split("'")[0] in schemas

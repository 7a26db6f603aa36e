"""Answers of the real engine under a schema are valid, whatever the model likes to say."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.pool import EmbeddedEnginePool

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["yes", "nö", 'a "b" \\ c', 3, None]},
        {"type": ["integer", "boolean"]},
        {"type": "number"},
        {"type": "integer", "minimum": 2, "maximum": 5},
        {"type": "integer", "minimum": 2},
        {"type": "string", "maxLength": 6, "minLength": 2},
        {"type": "string", "pattern": "^[a-c]{2,4}$"},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {
            "type": "object",
            "properties": {'né"w': {"type": "null"}, "b": {"anyOf": [{"const": 1}, {"const": 2}]}},
            "required": ["b"],
        },
        {
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/node"}},
                    "required": ["v"],
                }
            },
            "$ref": "#/$defs/node",
        },
    ],
)
async def test_an_answer_follows_its_schema(
    engine_pool: EmbeddedEnginePool, schema: dict[str, Any]
) -> None:
    asked = LlmRequest(
        kind="chat",
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": "Answer in JSON, as short as you can."}],
        max_output_tokens=80,
        seed=1,
        json_schema=schema,
    )
    chunks = [chunk async for chunk in engine_pool.complete(asked, 0)]
    text = "".join(chunk.text for chunk in chunks)
    if chunks[-1].finish_reason == "stop":
        jsonschema.validate(json.loads(text), schema)
    else:
        assert chunks[-1].finish_reason == "length"


async def test_no_answer_mixes_two_choices(engine_pool: EmbeddedEnginePool) -> None:
    # Alternatives that begin and end alike are merged by the engine if its grammar lets it.
    choices = [
        "row 1: share = total + people",
        "row 1: share = total - people",
        "row 2: odd = total - people",
        "row 2: odd = total * people",
    ]

    async def drawn(seed: int) -> str:
        asked = LlmRequest(
            kind="chat",
            model="smollm2-135m-instruct",
            messages=[{"role": "user", "content": "Say something."}],
            max_output_tokens=40,
            temperature=1.5,
            seed=seed,
            json_schema={"enum": choices},
        )
        chunks = [chunk async for chunk in engine_pool.complete(asked, 0)]
        said: str = json.loads("".join(chunk.text for chunk in chunks))
        return said

    said = await asyncio.gather(*(drawn(seed) for seed in range(10)))
    said += await asyncio.gather(*(drawn(seed) for seed in range(10, 20)))
    assert set(said) <= set(choices)
    assert len(set(said)) > 1

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import PoolRejectedError
from steelyard.pools.engine.schema import checked_schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "enum", "anyOf", "$ref", "pattern", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@given(st.dictionaries(st.sampled_from(["type", "properties", "items", "anyOf", "$defs"]), JSON))
def test_takes_or_rejects_anything_and_never_breaks(schema: dict[str, Any]) -> None:
    try:
        cleaned = checked_schema(schema, 10)
    except PoolRejectedError:
        return
    # What was let through once is let through again, unchanged.
    assert checked_schema(cleaned, 10) == cleaned


def test_bounds_unbounded_strings_and_leaves_bounded_ones() -> None:
    schema = {
        "type": "object",
        "properties": {
            "free": {"type": "string"},
            "short": {"type": "string", "maxLength": 3},
            "long": {"type": "string", "minLength": 50},
            "choice": {"type": "string", "enum": ["a"]},
        },
    }
    properties = checked_schema(schema, 10)["properties"]
    assert properties["free"]["maxLength"] == 10
    assert properties["short"]["maxLength"] == 3
    assert properties["long"]["maxLength"] == 50
    assert "maxLength" not in properties["choice"]


def test_takes_references_to_its_own_definitions() -> None:
    schema = {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    }
    assert checked_schema(schema, 10) == schema


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (nested(40), "nested deeper"),
        ({"type": "zzz"}, "#/type"),
        ({"enum": list(range(300))}, "#/enum has 300 values"),
        ({"enum": []}, "#/enum"),
        ({"description": "x" * 70_000}, "bytes"),
        ({"not": {"type": "string"}}, "#/not"),
        ({"type": "string", "maxLength": 10_000}, "#/maxLength is 10000"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "allows nothing"),
        ({"type": "array", "items": False}, "allows nothing"),
        ({"$ref": "https://example.com/schema.json"}, r"#/\$ref"),
        ({"$ref": "#/$defs/missing"}, r"#/\$ref"),
        ({"type": "string", "pattern": "(?=a)b"}, "#/pattern"),
        ({"type": "string", "pattern": "(" * 5}, "#/pattern"),
        ({"properties": {"a": {"propertyNames": {}}}}, "#/properties/a/propertyNames"),
    ],
)
def test_rejects_what_breaks_the_engine_and_names_the_place(
    schema: dict[str, Any], place: str
) -> None:
    with pytest.raises(PoolRejectedError, match=place):
        checked_schema(schema, 10)

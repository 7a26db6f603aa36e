from typing import Any

import pytest

from steelyard.pools.engine.grammar import schema_grammar
from steelyard.pools.engine.schema import checked_schema


def test_lists_properties_in_order_and_lets_optional_ones_out() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}},
        "required": ["a"],
    }
    grammar = schema_grammar(schema, 10)
    assert grammar is not None
    assert r'"\"a\":"' in grammar
    assert r'"," "\"b\":"' in grammar


def test_follows_references_that_lead_back() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    grammar = schema_grammar({"$defs": {"node": node}, "$ref": "#/$defs/node"}, 10)
    assert grammar is not None
    assert grammar.count("def0 ::=") == 1


def test_keeps_only_choices_of_the_type() -> None:
    assert schema_grammar({"type": "string", "enum": ["a", 1]}, 10) == 'root ::= "\\"a\\""'


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^a+$"},
        {"type": "string", "maxLength": 400},
        {"type": "integer", "minimum": 3},
        {"type": "number", "maximum": 3},
        {"type": "object", "required": ["a"]},
        {"anyOf": [{"type": "null"}], "type": "string"},
        {"type": "string", "enum": [1]},
        {"minimum": 3},
    ],
)
def test_leaves_to_the_engine_what_it_does_not_cover(schema: dict[str, Any]) -> None:
    assert schema_grammar(checked_schema(schema, 10), 10) is None

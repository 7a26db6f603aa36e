import pytest

import steelyard
from steelyard.errors import ConfigError


@steelyard.tool(timeout_s=3.0, memory_bytes=1000)
def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@steelyard.task()
async def greet(_: object, name: str) -> str:
    """Greets."""
    return f"hello {name}"


class Box:
    @staticmethod
    def method() -> None: ...


def test_a_tool_is_called_in_process_like_any_function() -> None:
    assert add(1) == 3
    assert add(a=1, b=1) == 2
    assert add.__doc__ == "Adds."


def test_a_tool_is_named_so_that_workers_can_import_it() -> None:
    assert add.name == f"{__name__}:add"
    assert (add.step_name, add.timeout_s, add.memory_bytes) == ("add", 3.0, 1000)


def test_arguments_travel_by_name() -> None:
    assert add.arguments(1, 5) == {"a": 1, "b": 5}
    assert add.arguments(b=5, a=1) == {"a": 1, "b": 5}
    with pytest.raises(TypeError):
        add.arguments(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_tool_inside_of_a_function_or_class_is_refused() -> None:
    def inner() -> None: ...

    with pytest.raises(ConfigError, match=r"inner is not at the top level of .*test_definitions"):
        steelyard.tool()(inner)
    with pytest.raises(ConfigError, match="not at the top level"):
        steelyard.tool()(Box.method)
    with pytest.raises(ConfigError, match="not at the top level"):
        steelyard.tool()(lambda: None)


async def test_an_agent_has_the_name_of_its_function_or_one_of_its_own() -> None:
    assert greet.name == "greet"
    assert greet.__doc__ == "Greets."
    assert steelyard.task(name="other")(greet.function).name == "other"

import importlib
import pkgutil
from types import ModuleType

import pytest

import steelyard


def _packages_with_all() -> list[ModuleType]:
    found: list[ModuleType] = [steelyard]
    for info in pkgutil.walk_packages(steelyard.__path__, "steelyard."):
        if info.ispkg:
            package = importlib.import_module(info.name)
            if hasattr(package, "__all__"):
                found.append(package)
    return found


@pytest.mark.parametrize("package", _packages_with_all(), ids=lambda package: package.__name__)
def test_what_a_package_exports_is_what_it_says_sorted(package: ModuleType) -> None:
    submodules = {info.name for info in pkgutil.iter_modules(package.__path__)}
    exported = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not (name in submodules and isinstance(value, ModuleType))
    }
    told = list(package.__all__)
    assert sorted(told, key=_ruff_order) == told
    assert {name for name in told if not name.startswith("__")} == exported
    assert all(hasattr(package, name) for name in told)


def _ruff_order(name: str) -> tuple[int, str]:
    """Constants, classes, the rest: the order that the linter keeps (RUF022)."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name

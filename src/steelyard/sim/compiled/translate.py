"""Numba, found only when it is wanted: kernels and all that they call, translated together.

A kernel is an ordinary function. Here it is copied with the functions that it calls replaced by
their translations, so that no module of the project imports Numba, and the functions that placement
and cost share with kernels need no mark. Without Numba the same copies run in Python, slowly, and
give the same answer.
"""

import dis
import functools
import hashlib
import importlib
import importlib.util
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steelyard.errors import ConfigError
from steelyard.perf.predict import pick
from steelyard.sim.compiled.ahead import ask_for, ask_for_start

Function = Callable[..., Any]


def _pick_one(condition: bool, yes: float, no: float) -> float:
    return yes if condition else no


# What works on arrays alone, and its counterpart for floats.
_SCALAR: dict[Function, Function] = {pick: _pick_one}


def has_numba() -> bool:
    """Is the extra `fast` installed?"""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def translated(kernel: types.FunctionType, *, compiled: bool = True) -> Function:
    """A kernel, ready to be called.

    Args:
        kernel: The function.
        compiled: Whether Numba compiles it; otherwise Python runs it.

    Returns:
        A function of the same arguments with the same answer.

    Raises:
        ConfigError: Numba is wanted and not installed.
    """
    if not compiled:
        return _copied(kernel, {}, lambda function: function)
    if not has_numba():
        raise ConfigError(
            "the compiled simulator needs Numba, which is not installed: "
            "install steelyard[fast], or run the same functions in Python with compiled=False"
        )
    numba = importlib.import_module("numba")
    by_reference = importlib.import_module("steelyard.sim.compiled.by_reference")
    options: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "nogil": True}
    # What only kernels call needs no entry from Python; that is a fifth of the time to compile.
    inner_options = {**options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    hints: dict[Any, Function] = {
        ask_for: by_reference.prefetch,
        ask_for_start: by_reference.prefetch_start,
    }
    sites = _call_sites(kernel)

    def compile_one(function: types.FunctionType) -> Function:
        is_lone = sites.get(function.__code__, 0) == 1
        jitted: Function = numba.njit(**inner_options, forceinline=is_lone)(function)
        return jitted

    inner = _copied(kernel, hints, compile_one)
    outer = types.FunctionType(
        _call_by_reference.__code__, {"inner": inner, "refer": by_reference.refer}, kernel.__name__
    )
    outer.__module__ = kernel.__module__
    # Numba's cache looks at one file's date only; a name made of all sources tells every change.
    outer.__qualname__ = f"{kernel.__qualname__}_{_digest(kernel)}"
    cached: Function = numba.njit(cache=True, **options)(outer)
    return cached


def _call_by_reference(world: Any, until_s: float, actions: int) -> int:  # noqa: ANN401
    return inner(refer(world), until_s, actions)  # type: ignore[name-defined, no-any-return]  # noqa: F821


def _copied(
    function: types.FunctionType,
    known: dict[types.FunctionType, Function],
    finish: Callable[[types.FunctionType], Function],
) -> Function:
    if function in known:
        return known[function]
    scope = dict(function.__globals__)
    for name in function.__code__.co_names:
        called = scope.get(name)
        called = _SCALAR.get(called, called) if isinstance(called, types.FunctionType) else called
        if isinstance(called, types.FunctionType) and called.__module__.startswith("steelyard."):
            scope[name] = _copied(called, known, finish)
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__module__ = function.__module__
    copy.__qualname__ = function.__qualname__
    copy.__kwdefaults__ = function.__kwdefaults__
    known[function] = finish(copy)
    return known[function]


def _called_by(function: types.FunctionType, seen: set[types.FunctionType]) -> None:
    if function in seen:
        return
    seen.add(function)
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if isinstance(called, types.FunctionType) and called.__module__.startswith("steelyard."):
            _called_by(called, seen)


def _call_sites(kernel: types.FunctionType) -> dict[types.CodeType, int]:
    """From how many places is each function called, by its code?"""
    seen: set[types.FunctionType] = set()
    _called_by(kernel, seen)
    sites = dict.fromkeys((function.__code__ for function in seen), 0)
    for function in seen:
        for instruction in dis.get_instructions(function):
            called = (
                function.__globals__.get(instruction.argval)
                if instruction.opname == "LOAD_GLOBAL"
                else None
            )
            if isinstance(called, types.FunctionType) and called.__code__ in sites:
                sites[called.__code__] += 1
    return sites


def _digest(kernel: types.FunctionType) -> str:
    """A short hash of all files that the kernel and what it calls are written in."""
    seen: set[types.FunctionType] = set()
    _called_by(kernel, seen)
    files = sorted({function.__code__.co_filename for function in seen})
    # Constants live beside them, and how the world is handed on is compiled in.
    files += [str(Path(__file__).with_name(name)) for name in ("layout.py", "by_reference.py")]
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(Path(file).read_bytes())
    return hashed.hexdigest()[:12]

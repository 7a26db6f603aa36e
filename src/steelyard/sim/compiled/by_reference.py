# Numba and llvmlite have no types.
# mypy: disable-error-code="import-untyped, no-untyped-call, untyped-decorator, override"
# pyright: basic
"""Hands a tuple of arrays from kernel to kernel as one pointer. Imported with Numba, never before.

Numba passes every word of every array of a tuple as an argument of its own; with fifty arrays that
makes calls slow and compilation take minutes. Here the tuple is laid on the stack of the outermost
kernel, and the others read what they need from there.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, register_model


class Reference(types.Type):
    """Type of a pointer to a named tuple."""

    def __init__(self, target: Any) -> None:  # noqa: ANN401 - Numba's types are not typed
        self.target = target
        super().__init__(name=f"reference_{len(target.fields)}")


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, referred: Any) -> None:  # noqa: ANN401
        super().__init__(manager, referred, ir.IntType(8).as_pointer())


@infer_getattr
class _ReferenceAttributes(AttributeTemplate):
    key = Reference

    def generic_resolve(self, value: Any, attr: str) -> Any:  # noqa: ANN401
        if attr not in value.target.fields:
            return None
        return value.target.types[value.target.fields.index(attr)]


@lower_getattr_generic(Reference)
def _load(context: Any, builder: Any, kind: Any, value: Any, attr: str) -> Any:  # noqa: ANN401
    pointer = builder.bitcast(value, context.get_value_type(kind.target).as_pointer())
    at = kind.target.fields.index(attr)
    loaded = builder.load(cgutils.gep_inbounds(builder, pointer, 0, at))
    return impl_ret_borrowed(context, builder, kind.target.types[at], loaded)


@intrinsic
def refer(typing_context: Any, target: Any) -> Any:  # noqa: ANN401
    """A reference to a named tuple, valid until the function that asked for it returns."""
    del typing_context

    def lay_down(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
        del context, signature
        place = cgutils.alloca_once_value(builder, values[0])
        return builder.bitcast(place, ir.IntType(8).as_pointer())

    return Reference(target)(target), lay_down

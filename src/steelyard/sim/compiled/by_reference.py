# Numba and llvmlite have no types.
# mypy: disable-error-code="import-untyped, no-untyped-call, untyped-decorator, override"
# pyright: basic
"""Hands a tuple of arrays from kernel to kernel as one pointer. Imported with Numba, never before.

Numba passes every word of every array of a tuple as an argument of its own; with fifty arrays that
makes calls slow and compilation take minutes. Here the tuple is laid on the stack of the outermost
kernel, and the others read what they need from there.
"""

import operator
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    infer_getattr,
    intrinsic,
    lower_builtin,
    lower_getattr_generic,
    register_model,
)
from numba.np.arrayobj import load_item, make_array, store_item

from steelyard.sim.compiled.layout import LINE_BYTES


class Reference(types.Type):
    """Type of a pointer to a named tuple."""

    def __init__(self, target: Any) -> None:  # noqa: ANN401 - Numba's types are not typed
        self.target = target
        super().__init__(name=f"reference_{len(target.fields)}")


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, referred: Any) -> None:  # noqa: ANN401
        super().__init__(manager, referred, ir.IntType(8).as_pointer())


class Column(types.Array):
    """Type of an array of the tuple: never indexed from its end, and never moved in a kernel."""

    def __init__(self, array: Any) -> None:  # noqa: ANN401
        super().__init__(
            array.dtype, array.ndim, array.layout, name=f"column_{array}", aligned=array.aligned
        )


register_model(Column)(models.ArrayModel)


def _address(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
    """Where an element lies: no look at the length, as no index is negative."""
    kind, index_kind = signature.args[:2]
    column = make_array(kind)(context, builder, values[0])
    at = context.cast(builder, values[1], index_kind, types.intp)
    bytes_each = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    offset = builder.mul(at, context.get_constant(types.intp, bytes_each))
    return cgutils.pointer_add(builder, column.data, offset)


@lower_builtin(operator.getitem, Column, types.Integer)
def _get_item(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
    address = _address(context, builder, signature, values)
    item = load_item(context, builder, signature.args[0], address)
    return impl_ret_borrowed(context, builder, signature.return_type, item)


@lower_builtin(operator.setitem, Column, types.Integer, types.Any)
def _set_item(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
    kind, _, given = signature.args
    address = _address(context, builder, signature, values)
    value = context.cast(builder, values[2], given, kind.dtype)
    store_item(context, builder, kind, value, address)
    return context.get_dummy_value()


@infer_getattr
class _ReferenceAttributes(AttributeTemplate):
    key = Reference

    def generic_resolve(self, value: Any, attr: str) -> Any:  # noqa: ANN401
        if attr not in value.target.fields:
            return None
        array = value.target.types[value.target.fields.index(attr)]
        return Column(array) if array.ndim == 1 else array


@lower_getattr_generic(Reference)
def _load(context: Any, builder: Any, kind: Any, value: Any, attr: str) -> Any:  # noqa: ANN401
    pointer = builder.bitcast(value, context.get_value_type(kind.target).as_pointer())
    at = kind.target.fields.index(attr)
    array = kind.target.types[at]
    place = cgutils.gep_inbounds(builder, pointer, 0, at)
    if array.ndim != 1:
        loaded = builder.load(place)
        return impl_ret_borrowed(context, builder, array, loaded)
    model = context.data_model_manager[array]
    column = cgutils.get_null_value(context.get_value_type(Column(array)))
    unchanging = builder.module.add_metadata([])
    for name in ("data", "nitems"):
        number = model.get_field_position(name)
        part = builder.load(cgutils.gep_inbounds(builder, place, 0, number))
        part.set_metadata("invariant.load", unchanging)
        column = builder.insert_value(column, part, number)
        if name == "nitems":
            column = builder.insert_value(column, part, [model.get_field_position("shape"), 0])
    return impl_ret_borrowed(context, builder, Column(array), column)


@intrinsic
def prefetch(typing_context: Any, column: Any, at: Any) -> Any:  # noqa: ANN401
    """Ask the processor for the first two cache lines of a record."""
    del typing_context
    return types.none(column, at), partial(_ask, False)


@intrinsic
def prefetch_start(typing_context: Any, column: Any, at: Any) -> Any:  # noqa: ANN401
    """Ask the processor for the first cache line of a record."""
    del typing_context
    return types.none(column, at), partial(_ask, True)


def _ask(
    only_first: bool,
    context: Any,  # noqa: ANN401
    builder: Any,  # noqa: ANN401
    signature: Any,  # noqa: ANN401
    values: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    first = builder.bitcast(
        _address(context, builder, signature, values), ir.IntType(8).as_pointer()
    )
    word = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [first.type, word, word, word])
    asked = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    bytes_each = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
    asked_bytes = 1 if only_first else min(bytes_each, 2 * LINE_BYTES)
    for begin in range(0, asked_bytes, LINE_BYTES):
        line = cgutils.pointer_add(builder, first, ir.Constant(ir.IntType(64), begin))
        # To read, for all levels of the cache, data.
        builder.call(asked, [line, word(0), word(3), word(1)])
    return context.get_dummy_value()


@intrinsic
def refer(typing_context: Any, target: Any) -> Any:  # noqa: ANN401
    """A reference to a named tuple, valid until the function that asked for it returns."""
    del typing_context

    def lay_down(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ANN401
        del context, signature
        place = builder.bitcast(
            cgutils.alloca_once_value(builder, values[0]), ir.IntType(8).as_pointer()
        )
        # Kernels take what lies there for unchanging. The compiler must not see that it is written
        # here, or it would have the right to read before it writes.
        kind = ir.FunctionType(place.type, [place.type])
        return builder.asm(kind, "", "=r,0,~{memory}", [place], side_effect=True)

    return Reference(target)(target), lay_down

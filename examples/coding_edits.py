"""Single edits of a Python source, made from its syntax tree: what mutation testing does backwards.

An edit changes one operator or one number of one line, so that every edited source is valid Python.
"""

import ast
from typing import TypedDict

_COMPARE = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}


class Edit(TypedDict):
    """Line `line`, counted from 1, is to read `new` in place of `old`; `function` holds it."""

    function: str
    line: int
    old: str
    new: str


def single_edits(source: str) -> list[Edit]:
    r"""Which single edits does a source offer, in the order of its lines?

    >>> [edit["new"] for edit in single_edits("def f(a):\n    return a + 1\n")][:3]
    ['    return a - 1', '    return a * 1', '    return a // 1']
    """
    lines = source.splitlines()
    found: list[Edit] = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            for first, last, texts in _changes(node):
                old = lines[first[0] - 1]
                if first[0] != last[0]:
                    continue
                found += [
                    Edit(
                        function=function.name,
                        line=first[0],
                        old=old,
                        new=old[: first[1]] + text + old[last[1] :],
                    )
                    for text in texts
                ]
    unique = {(edit["line"], edit["new"]): edit for edit in found if edit["old"] != edit["new"]}
    return sorted(unique.values(), key=lambda edit: edit["line"])


def apply_edit(source: str, edit: Edit) -> str:
    """The source with the edit made."""
    lines = source.splitlines()
    lines[edit["line"] - 1] = edit["new"]
    return "\n".join(lines) + "\n"


def _changes(node: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int], list[str]]]:
    """Places of the node (line, column) with the texts that may stand there instead."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        texts = [f" {one} " for one in _COMPARE.values()]
        return [(_end(node.left), _start(node.comparators[0]), texts)]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        texts = [f" {one} " for one in _ARITHMETIC.values()]
        return [(_end(node.left), _start(node.right), texts)]
    if isinstance(node, ast.Constant) and type(node.value) is int:
        texts = [str(node.value - 1), str(node.value + 1)]
        return [(_start(node), _end(node), texts)]
    return []


def _start(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset

"""The demo's agent: it reads a module of the Python standard library and catalogues it.

Four steps on input that every machine has: a tool parses the source, a model summarises the
documentation, the same conversation classifies it, a tool checks and assembles the record.
"""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

from steelyard.errors import ConfigError
from steelyard.runtime.context import TaskContext, decode_answer
from steelyard.runtime.definitions import task, tool

# Pure-Python modules that every CPython since 3.11 ships.
MODULES = (
    "argparse",
    "bisect",
    "calendar",
    "configparser",
    "csv",
    "difflib",
    "fnmatch",
    "fractions",
    "glob",
    "gzip",
    "heapq",
    "ipaddress",
    "mimetypes",
    "pprint",
    "queue",
    "random",
    "sched",
    "secrets",
    "shlex",
    "shutil",
    "statistics",
    "string",
    "tempfile",
    "textwrap",
)

CATEGORIES = (
    "text",
    "files and data formats",
    "numbers",
    "data structures",
    "concurrency",
    "networking",
    "operating system",
    "developer tools",
)

_DOC_CHARS = 600
_SUMMARY_TOKENS = 40
_CATEGORY_TOKENS = 24
_SYSTEM = "You catalogue modules of the Python standard library. Answer briefly and to the point."
_QUESTION = "Module {module}:\n{documentation}\n\nSay in one line what it is for."
_CATEGORY_QUESTION = "Which category fits best?"
# A small model answers far better after examples; all tasks share them as a prompt prefix.
_EXAMPLES = (
    ("threading", "Thread-based parallelism.", "Runs threads that share data.", "concurrency"),
    ("json", "Encode and decode JSON.", "Reads and writes JSON.", "files and data formats"),
    ("math", "Functions such as sqrt and log.", "Computes functions of numbers.", "numbers"),
    ("collections", "Container datatypes.", "Offers more containers.", "data structures"),
    ("pdb", "The Python debugger.", "Debugs programs step by step.", "developer tools"),
    ("os", "Operating system interfaces.", "Calls the system.", "operating system"),
    ("re", "Regular expressions.", "Searches text for patterns.", "text"),
)
_CATEGORY_SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": list(CATEGORIES)}},
    "required": ["category"],
    "additionalProperties": False,
}


@tool(timeout_s=20.0)
def read_module(module: str) -> dict[str, Any]:
    """What does the source of a module say? Parsed, never imported.

    Args:
        module: Name of a pure-Python module.

    Returns:
        Its documentation and some counts.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ConfigError(f"module {module} has no Python source on this machine; leave it out")
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
    public = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    names = ", ".join(name for name in public if not name.startswith("_"))
    return {
        "module": module,
        "documentation": (ast.get_docstring(tree) or f"Public names: {names}")[:_DOC_CHARS],
        "lines": source.count("\n") + 1,
        "functions": len(functions),
        "classes": len(classes),
        "imports": sum(isinstance(n, ast.Import | ast.ImportFrom) for n in nodes),
    }


@tool(timeout_s=20.0)
def assemble_record(facts: dict[str, Any], summary: str, category: str) -> dict[str, Any]:
    """Put a record together and check it.

    Args:
        facts: What `read_module` returned.
        summary: What the model wrote.
        category: What the model chose.

    Returns:
        The record; `checks` says which conditions it meets.
    """
    lines = [line.strip() for line in summary.splitlines() if line.strip()]
    first_line = lines[0] if lines else ""
    checks = {
        "summary_is_not_empty": bool(first_line),
        "category_is_known": category in CATEGORIES,
        "source_was_parsed": facts["lines"] > 0,
    }
    return {
        "module": facts["module"],
        "summary": first_line,
        "category": category,
        "lines": facts["lines"],
        "functions": facts["functions"],
        "classes": facts["classes"],
        "checks": checks,
        "valid": all(checks.values()),
    }


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _opening() -> list[dict[str, Any]]:
    """The start of every conversation: what to do, and how it is done."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": _SYSTEM}]
    for module, documentation, summary, category in _EXAMPLES:
        messages += [
            _user(_QUESTION.format(module=module, documentation=documentation)),
            _assistant(summary),
            _user(_CATEGORY_QUESTION),
            _assistant(json.dumps({"category": category})),
        ]
    return messages


@task(name="librarian")
async def catalogue_module(ctx: TaskContext, module: str) -> dict[str, Any]:
    """Catalogue one module; four steps, each built on the ones before.

    Args:
        ctx: The task.
        module: Name of a pure-Python module.

    Returns:
        The checked record.
    """
    facts = await ctx.tool(read_module, module)
    messages = [*_opening(), _user(_QUESTION.format(**facts))]
    summary = await ctx.llm(messages, step="summarise", max_output_tokens=_SUMMARY_TOKENS)
    messages += [_assistant(summary.text), _user(_CATEGORY_QUESTION)]
    answer = await ctx.llm(
        messages,
        step="classify",
        max_output_tokens=_CATEGORY_TOKENS,
        json_schema=_CATEGORY_SCHEMA,
    )
    category = decode_answer(answer, "classify")["category"]
    return await ctx.tool(assemble_record, facts, summary.text, category)

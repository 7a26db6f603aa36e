"""An agent that answers questions over this project's own documents, with a source for each answer.

    steelyard run examples/retrieval_agent.py:answer --deadline 120s --budget 0.01 \
        --input '{"question": "What happens to the tasks of a worker that dies?"}'
    steelyard run examples/retrieval_agent.py:evaluate     # how often is the right document found?

Steps: the documents are read and cut into passages, embedded in batches side by side, the passages
most like the question are taken (cosine), a model answers from them in JSON that must name one of
them, and a tool checks whether that passage holds what the answer says. All of it runs on CPU.

The embeddings find the right document most of the time: `evaluate` prints how often. The model of
135M parameters that answers by default often says little or something beside the point, and the
check is a comparison of words, no judgement. Both are printed as they are.
"""

import math
import re
from pathlib import Path
from typing import Any

import steelyard
from steelyard.runtime.context import TaskContext, decode_answer

EMBEDDING_MODEL = "all-minilm-l6-v2"
_ROOT = Path(__file__).parents[1]
# The model takes texts of 256 tokens; words count as a token per four letters here.
_PASSAGE_TOKENS = 160
_BATCH = 32
_SHOWN = 3
_HEADING = re.compile(r"#{1,4} (.+)")
_SYSTEM = "You answer questions from the numbered passages, in one sentence."

# Questions that a new user may ask, and where the answer stands.
QUESTIONS = (
    ("What does make demo do?", "README.md"),
    ("Which hardware wins for large language models on a full machine?", "README.md"),
    ("Which headers tell the gateway the deadline and the budget of a step?", "README.md"),
    ("How is the process of an embedded engine supervised?", "docs/adr/0006-embedded-engine.md"),
    ("Why is OpenVINO the inference library?", "docs/adr/0006-embedded-engine.md"),
    ("What happens to the tasks of a worker that dies?", "docs/adr/0007-durable-tasks.md"),
    (
        "How does a step stay recorded once when its lease is lost?",
        "docs/adr/0007-durable-tasks.md",
    ),
    ("What keeps a tool from opening a network connection?", "docs/adr/0009-tool-sandbox.md"),
    ("Is bubblewrap needed to confine tools?", "docs/adr/0009-tool-sandbox.md"),
    (
        "How is the cheapest fleet searched for and the gap proven?",
        "docs/adr/0010-planner-search.md",
    ),
    (
        "What is the reference core that CPU speed is relative to?",
        "docs/adr/0004-reference-core.md",
    ),
    ("How is the cost of an LLM step computed?", "docs/adr/0003-cost-function.md"),
    ("Why are there no pandas and no pydantic?", "docs/adr/0005-dependencies.md"),
    ("Why does everything fold the same event log?", "docs/adr/0002-one-log-and-folds.md"),
    ("Which package may import which other package?", "docs/architecture.md"),
    ("What is the difference between a task, a step and an attempt?", "docs/glossary.md"),
    ("What does the word goodput mean?", "docs/glossary.md"),
    ("How do I measure a pool and plan a fleet for my own agents?", "docs/planning.md"),
    ("How do I add a pool or a policy to the code?", "CONTRIBUTING.md"),
    ("What will Steelyard never do?", "SCOPE.md"),
)


def read_passages() -> list[dict[str, str]]:
    """The project's documents, cut at headings and paragraphs into passages of bounded length."""
    files = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md"), *_ROOT.glob("docs/adr/*.md")])
    skipped = {"CHANGELOG.md", "docs/cli.md", "docs/examples.md", "docs/index.md"}
    found: list[dict[str, str]] = []
    for file in files:
        name = file.relative_to(_ROOT).as_posix()
        if name not in skipped:
            found += _passages(name, file.read_text(encoding="utf-8"))
    return found


def _passages(document: str, text: str) -> list[dict[str, str]]:
    title = heading = ""
    found: list[dict[str, str]] = []
    pending: list[str] = []

    def flush() -> None:
        if pending:
            place = title if heading in ("", title) else f"{title}: {heading}"
            found.append({"document": document, "text": f"{place}\n" + "\n".join(pending)})
            pending.clear()

    for line in text.splitlines():
        marked = _HEADING.match(line)
        if marked:
            flush()
            heading = marked.group(1)
            title = title or heading
        elif line.strip():
            if pending and _tokens("\n".join([title, heading, *pending, line])) > _PASSAGE_TOKENS:
                flush()
            pending.append(line[:400])
    flush()
    return found


def _tokens(text: str) -> int:
    return sum(-(-len(word) // 4) for word in re.findall(r"\w+|[^\w\s]", text))


@steelyard.tool(timeout_s=20.0)
def check_answer(answer: str, passage: str) -> dict[str, Any]:
    """Which of the answer's longer words stand in the passage that it names?"""
    words = {word.lower() for word in re.findall(r"[A-Za-z]{5,}", answer)}
    there = {word for word in words if word in passage.lower()}
    frac = len(there) / len(words) if words else 0.0
    return {"supported": frac >= 0.5, "words_found_frac": frac}


async def _index(ctx: TaskContext) -> tuple[list[dict[str, str]], list[tuple[float, ...]]]:
    """Passages and their vectors; every batch is a step of its own."""
    passages: list[dict[str, str]] = await ctx.step(read_passages)
    texts = [one["text"] for one in passages]
    batches = await ctx.gather(
        *(
            ctx.embed(texts[first : first + _BATCH], step="embed", model=EMBEDDING_MODEL)
            for first in range(0, len(texts), _BATCH)
        )
    )
    return passages, [vector for batch in batches for vector in batch]


def _nearest(question: tuple[float, ...], vectors: list[tuple[float, ...]]) -> list[int]:
    """Numbers of the passages, most alike first; vectors have length 1."""
    likeness = [math.fsum(a * b for a, b in zip(question, one, strict=True)) for one in vectors]
    return sorted(range(len(vectors)), key=lambda number: (-likeness[number], number))


@steelyard.task(name="retrieval_agent")
async def answer(ctx: TaskContext, question: str) -> dict[str, Any]:
    """Answer a question over the documents.

    Args:
        ctx: The task.
        question: What is asked.

    Returns:
        The answer as the model gave it, the document that it named, and what the check says.
    """
    passages, vectors = await _index(ctx)
    [asked] = await ctx.embed([question], step="embed question", model=EMBEDDING_MODEL)
    best = [passages[number] for number in _nearest(asked, vectors)[:_SHOWN]]
    shown = "\n\n".join(f"[{place}] {one['text']}" for place, one in enumerate(best, start=1))
    schema = {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "maxLength": 120},
            "passage": {"enum": list(range(1, len(best) + 1))},
        },
        "required": ["answer", "passage"],
        "additionalProperties": False,
    }
    told = await ctx.llm(
        [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": f"{shown}\n\nQuestion: {question}"},
        ],
        step="answer",
        # Enough for the longest answer of the schema, also at a token per character.
        max_output_tokens=160,
        json_schema=schema,
    )
    said = decode_answer(told, "answer")
    named = best[said["passage"] - 1]
    check = await ctx.tool(check_answer, said["answer"], named["text"])
    return {
        "question": question,
        "answer": said["answer"],
        "source": named["document"],
        "retrieved": [one["document"] for one in best],
        "check": check,
    }


@steelyard.task(name="retrieval_evaluation")
async def evaluate(ctx: TaskContext) -> dict[str, Any]:
    """How often is the right document among the first passages found?

    Args:
        ctx: The task.

    Returns:
        Rates over `QUESTIONS`, and those whose document was not among the first three passages.
    """
    passages, vectors = await _index(ctx)
    asked = await ctx.embed(
        [question for question, _ in QUESTIONS], step="embed questions", model=EMBEDDING_MODEL
    )
    places: list[int] = []
    missed: list[dict[str, Any]] = []
    for (question, document), vector in zip(QUESTIONS, asked, strict=True):
        order = [passages[number]["document"] for number in _nearest(vector, vectors)]
        places.append(order.index(document))
        if places[-1] >= _SHOWN:
            missed.append({"question": question, "expected": document, "found": order[:_SHOWN]})
    return {
        "questions": len(QUESTIONS),
        "passages": len(passages),
        "hit_at_1_frac": sum(place < 1 for place in places) / len(places),
        "hit_at_3_frac": sum(place < _SHOWN for place in places) / len(places),
        "missed": missed,
    }

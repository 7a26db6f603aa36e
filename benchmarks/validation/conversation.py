"""The agent that `benchmarks/validate.py` runs: a conversation with tool calls, drawn from a seed.

Every turn asks the model about a longer and longer conversation, then a tool computes on what came
back, so that prompts repeat their prefixes as those of real agents do.
"""

import hashlib
import random
from typing import Any

import steelyard
from steelyard.runtime.context import TaskContext

_WORDS = (
    "balance arm weight load fleet price core cache prompt answer tool queue slack deadline "
    "budget provider region machine engine batch prefix token memory socket packet thread"
)


@steelyard.tool(timeout_s=30.0)
def digest(text: str, rounds: int) -> str:
    """Hash a text again and again: CPU time and nothing else.

    Args:
        text: What is hashed.
        rounds: How often.

    Returns:
        The last hash.
    """
    value = text.encode()
    for _ in range(rounds):
        value = hashlib.sha256(value).digest()
    return value.hex()


@steelyard.task(name="conversation")
async def conversation(ctx: TaskContext, seed: int, words: int, mark: str) -> int:
    """Talk for two to five turns.

    Args:
        ctx: The task.
        seed: Draws the number of turns and the size of everything.
        words: Mean number of words of a user's message.
        mark: First word of every message: a conversation that is held again, with another mark,
            finds nothing of the first one in the engine's cache, whose blocks hold 16 tokens and
            more.

    Returns:
        Turns.
    """
    chance = random.Random(seed)  # noqa: S311 - a workload, not a secret
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You explain words from the operation of computer fleets."}
    ]
    turns = chance.randint(2, 5)
    for turn in range(turns):
        length = max(5, int(chance.lognormvariate(0.0, 0.6) * words))
        text = " ".join(chance.choices(_WORDS.split(), k=length))
        messages.append({"role": "user", "content": f"{mark} {turn}. Explain at length: {text}"})
        limit = chance.randint(16, 64)
        answer = await ctx.llm(messages, step="explain", max_output_tokens=limit)
        messages.append({"role": "assistant", "content": answer.text})
        rounds = int(chance.lognormvariate(0.0, 0.8) * 60_000)
        await ctx.tool(digest, answer.text, rounds)
    return turns

"""Embedded engines behind our gateway against llama.cpp's own server: speed, and quality beside it.

    .venv/bin/python benchmarks/engines.py                        # all engines that are installed
    .venv/bin/python benchmarks/engines.py --llama-server PATH    # also a build of your own
    .venv/bin/python benchmarks/engines.py --engines openvino --rounds 1 --keep FILE

The last one is a piece of about three minutes: run it three times, and it prints all rounds so far.

All serve the same GGUF file over the OpenAI wire to the same client; ours through the whole gateway
(authentication off, policy, event log on disk) with one single-thread process per core, llama.cpp
as one process with a thread per core, 16 slots and otherwise its defaults. Servers run at the same
time and are loaded in turn, so that each round sees the same neighbours; medians over the rounds,
and of their ratios.

- decode: tokens per second of all streams together, between the moment the last stream has its
  first token and the moment the first one ends.
- agent steps: 8 at once behind a new prefix of about 1,000 tokens, 16 tokens each; wall seconds.
- tasks: 12 tasks of 3 steps, 6 at once: a common instruction, a history that grows, and a last step
  that chooses from four values; tasks per minute.
- agreement: greedy answers of 24 tokens to the same 16 prompts: the mean share of characters alike
  from the start. Quality is what engine_perplexity.py compares; right answers are not counted, for
  this model answers questions at the level of chance.
"""

import argparse
import asyncio
import datetime as dt
import random
import statistics
import sys
import time
from contextlib import ExitStack, aclosing
from importlib import metadata
from pathlib import Path

import engine_figures
import msgspec
from engine_figures import Figures
from engine_servers import MODEL, Server, binary, ours, tree_cpu_s, wheel

from steelyard.config.environment import machine_description, usable_cores
from steelyard.pools.backend import LlmRequest
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.engine.choice import installed_engines
from steelyard.pools.engine.model import find_model

_SLOTS, _SLOT_TOKENS = 16, 2048
_WORDS = ("river", "engine", "garden", "letter", "winter", "market", "bridge", "castle", "island")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Text, tokens, and when its pieces came, in seconds of the clock."""

    text: str
    output_tokens: int
    times_s: list[float]


class Client:
    """Asks one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._pool = OpenAiEndpointPool([server.base_url], [MODEL])

    async def start(self) -> None:
        """Connect."""
        await self._pool.start()

    async def close(self) -> None:
        """Hang up."""
        await self._pool.close()

    async def ask(
        self, messages: list[dict[str, str]], tokens: int, choices: tuple[str, ...] = ()
    ) -> Answer:
        """Ask greedily."""
        request = LlmRequest(
            kind="chat",
            model=MODEL,
            messages=[dict(message) for message in messages],
            max_output_tokens=tokens,
            temperature=0.0,
            json_schema={"enum": list(choices)} if choices else None,
        )
        texts: list[str] = []
        times_s: list[float] = []
        used = 0
        async with aclosing(self._pool.complete(request, 0)) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    texts.append(chunk.text)
                    times_s.append(time.perf_counter())
                used = chunk.usage.output_tokens if chunk.usage else used
        return Answer(text="".join(texts), output_tokens=used, times_s=times_s)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def decode(client: Client, streams: int, chance: random.Random) -> float:
    """Tokens per second of all streams together."""
    asked = [
        [_user(f"Tell me a very long story about a {chance.choice(_WORDS)}, number {n}.")]
        for n in range(streams)
    ]
    answers = await asyncio.gather(*(client.ask(one, 72) for one in asked))
    start_s = max(answer.times_s[0] for answer in answers)
    end_s = min(answer.times_s[-1] for answer in answers)
    if end_s <= start_s:
        return float("nan")
    within = sum(start_s < t <= end_s for answer in answers for t in answer.times_s)
    return within / (end_s - start_s)


async def agent_steps(client: Client, chance: random.Random) -> float:
    """Wall seconds of 8 steps behind a new prefix."""
    prefix = " ".join(f"{chance.choice(_WORDS)} {chance.randrange(10)}" for _ in range(480))
    start_s = time.perf_counter()
    await asyncio.gather(
        *(client.ask([_user(f"{prefix}\nAgent {n}: what comes next?")], 16) for n in range(8))
    )
    return time.perf_counter() - start_s


async def tasks(client: Client, chance: random.Random) -> float:
    """Tasks per minute."""
    rules = " ".join(f"Rule {n}: mind the {chance.choice(_WORDS)}." for n in range(30))
    system = {"role": "system", "content": rules}
    places = asyncio.Semaphore(6)

    async def task(number: int) -> None:
        async with places:
            history = [system, _user(f"Task {number}: describe the {_WORDS[number % 9]}.")]
            for step in range(2):
                answer = await client.ask(history, 24)
                history += [{"role": "assistant", "content": answer.text}, _user(f"Go on, {step}.")]
            await client.ask(history, 16, ("north", "south", "east", "west"))

    start_s = time.perf_counter()
    await asyncio.gather(*(task(number) for number in range(12)))
    return 12 * 60 / (time.perf_counter() - start_s)


async def greedy_texts(client: Client) -> list[str]:
    """Answers to the same prompts."""
    asked = [f"Explain what a {word} is." for word in _WORDS]
    asked += [f"Write one sentence about the {word}." for word in _WORDS[:7]]
    return [(await client.ask([_user(text)], 24)).text for text in asked]


def _alike(a: str, b: str) -> float:
    shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    longest = max(len(a), len(b), 1)
    return (min(len(a), len(b)) if shared is None else shared) / longest


async def measure_round(clients: list[Client], figures: Figures, seed: int, *, whole: bool) -> None:
    """All speeds of one more round."""

    def note(what: str, client: Client, value: float) -> None:
        figures.note(what, client.server.name, value)
        print(f"  {client.server.name}: {what}: {value:.4g}", file=sys.stderr, flush=True)

    for client in clients if figures.rounds % 2 == 0 else clients[::-1]:
        # The same questions to every server of a round, new ones in every round.
        chance = random.Random(seed * 1000 + figures.rounds)  # noqa: S311 - no secret
        before_s, start_s = tree_cpu_s(client.server.pid), time.perf_counter()
        for streams in (1, 4, 16):
            rate = await decode(client, streams, chance)
            note(f"decode, {streams} streams, tokens/s", client, rate)
        if whole:
            took_s = await agent_steps(client, chance)
            note("8 agent steps, new 1,000-token prefix, s", client, took_s)
            note("tasks per minute", client, await tasks(client, chance))
        note("round, wall s", client, time.perf_counter() - start_s)
        note("round, CPU s", client, tree_cpu_s(client.server.pid) - before_s)
    figures.rounds += 1


async def _agreement(clients: list[Client]) -> dict[str, dict[str, list[float]]]:
    names = [client.server.name for client in clients]
    texts = {client.server.name: await greedy_texts(client) for client in clients}
    found: dict[str, list[float]] = {}
    for name in names:
        alike = [_alike(a, b) for a, b in zip(texts[name], texts[names[-1]], strict=True)]
        found[name] = [statistics.mean(alike)]
    return {f"greedy text as of {names[-1]}": found}


async def _compare(servers: list[Server], arguments: argparse.Namespace) -> None:
    clients = [Client(server) for server in servers]
    for client in clients:
        await client.start()
        # The first requests of a fresh process pay for warming up.
        await client.ask([_user("Hello.")], 4, ("a", "b"))
        await asyncio.gather(*(client.ask([_user(f"Hello, {n}.")], 8) for n in range(16)))
    figures = engine_figures.read(arguments.keep)
    for _ in range(arguments.rounds):
        whole = not arguments.decode_only
        await measure_round(clients, figures, arguments.seed, whole=whole)
        # A run that is cut off loses one round, not all.
        engine_figures.keep(arguments.keep, figures)
    print(f"{figures.rounds} rounds")
    engine_figures.print_table(figures.speeds)
    if not figures.quality:
        figures.quality = await _agreement(clients)
        engine_figures.keep(arguments.keep, figures)
    engine_figures.print_table(figures.quality)
    for client in clients:
        await client.close()


def main() -> None:
    """Start the servers, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="figures of several runs, which are added up")
    parser.add_argument("--decode-only", action="store_true")
    parser.add_argument("--engines", nargs="*", default=list(installed_engines()))
    parser.add_argument("--llama-server", default="", help="program, and arguments of its own")
    parser.add_argument("--no-wheel", action="store_true", help="leave the wheel's server out")
    arguments = parser.parse_args()
    model_path, cores = find_model().path, usable_cores()
    print(f"{machine_description()}; {dt.datetime.now(dt.UTC).date()}; seed {arguments.seed}")
    versions = [f"{name} {metadata.version(name)}" for name in ("openvino-genai", "xllamacpp")]
    print(f"{model_path.rpartition('/')[2]}; {'; '.join(versions)}")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(ours(engine, model_path, cores)) for engine in arguments.engines
        ]
        if arguments.llama_server:
            own = binary(arguments.llama_server, model_path, cores, _SLOTS, _SLOT_TOKENS)
            servers.append(stack.enter_context(own))
        if not arguments.no_wheel:
            servers.append(stack.enter_context(wheel(model_path, cores, _SLOTS, _SLOT_TOKENS)))
        for server in servers:
            print(f"- {server.name}: {server.build}")
        asyncio.run(_compare(servers, arguments))


if __name__ == "__main__":
    main()

"""How fast is a live pool? Timed requests at several prompt lengths, cached shares and loads."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Literal

import msgspec

from steelyard.errors import ConfigError
from steelyard.perf.profile import Average, Phase, TimedRequest
from steelyard.pools.backend import LlmBackend, LlmRequest

CallKind = Literal["chat", "completion"]
# Told (what, settings done, all settings).
Tick = Callable[[str, int, int], None]

_WARM_UP_WORDS = 24


class ProfilePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured.

    Attributes:
        prompt_tokens: Prompt lengths, each sent alone and uncached.
        cached_fracs: Shares of the longest prompt that repeat a prefix sent before.
        concurrencies: Requests sent at once.
        output_tokens: Tokens asked for where decode is measured.
        decode_prompt_tokens: Length of the prompts where decode is measured; 0 takes short ones. A
            long context slows decode down where many streams read it, so take what agents have.
        repetitions: How often every setting is measured.
        kind: Which call is timed; vendors may offer chat alone.
        average: What is fitted of the repetitions.
        mark: With what each prompt begins. A pool that was profiled before has those prompts in
            its cache: give another mark.
    """

    prompt_tokens: tuple[int, ...] = (128, 512, 1024, 2048)
    cached_fracs: tuple[float, ...] = (0.5, 0.9)
    concurrencies: tuple[int, ...] = (1, 2, 4, 8, 16)
    output_tokens: int = 48
    decode_prompt_tokens: int = 256
    repetitions: int = 5
    kind: CallKind = "completion"
    average: Average = "median"
    mark: str = "note"

    @property
    def settings(self) -> int:
        """How many settings are measured?"""
        return len(self.prompt_tokens) + len(self.cached_fracs) + len(self.concurrencies)


SHORT_PLAN = ProfilePlan(
    prompt_tokens=(64, 192, 384),
    cached_fracs=(0.75,),
    concurrencies=(1, 2, 4),
    output_tokens=12,
    decode_prompt_tokens=0,
    repetitions=3,
)


async def profile(
    backend: LlmBackend,
    model: str,
    plan: ProfilePlan,
    tick: Tick,
    now_s: Callable[[], float] = time.perf_counter,
) -> tuple[TimedRequest, ...]:
    """Send the requests of a plan and time them.

    Streams sent at once go to the replicas in turn. The pool should have nothing else to do. Every
    setting is measured once, then all of them again, and so on: a moment in which the machine is
    slow then falls on all of them alike, and does not bend the curves.

    Args:
        backend: A started pool.
        model: One of its models.
        plan: What is measured.
        tick: Told of progress, before each setting.
        now_s: The clock, seconds.

    Returns:
        All timed requests, in the order sent.

    Raises:
        ConfigError: The plan asks for nothing, or for nonsense.
        PoolError: The pool failed.
    """
    _check(plan)
    profiler = _Profiler(backend, model, plan, now_s)
    total = plan.repetitions * plan.settings
    tick("warming up", 0, total)
    await profiler.warm_up()
    done = 0
    for repetition in range(plan.repetitions):
        for what, measure in _settings(profiler, repetition):
            tick(f"{what}, {repetition + 1} of {plan.repetitions}", done, total)
            await measure
            done += 1
    return tuple(profiler.timed)


def _settings(
    profiler: "_Profiler", repetition: int
) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
    plan = profiler.plan
    for tokens in plan.prompt_tokens:
        yield f"prefill of {tokens} tokens", profiler.prefill(tokens, repetition)
    for frac in plan.cached_fracs:
        yield f"prefill with {frac:.0%} cached", profiler.cached(frac, repetition)
    for streams in plan.concurrencies:
        yield f"decode of {streams} streams", profiler.decode(streams, repetition)


def _check(plan: ProfilePlan) -> None:
    numbers = (*plan.prompt_tokens, *plan.concurrencies, plan.output_tokens, plan.repetitions)
    fracs_fit = all(0.0 < frac < 1.0 for frac in plan.cached_fracs)
    if min(numbers) < 1 or plan.decode_prompt_tokens < 0 or not fracs_fit:
        raise ConfigError(
            "a profile needs prompt lengths, loads, output tokens and repetitions of at least 1,"
            f" and cached shares between 0 and 1, got {plan}"
        )
    for what, values in (("prompt lengths", plan.prompt_tokens), ("loads", plan.concurrencies)):
        if len(set(values)) != len(values):
            raise ConfigError(f"the {what} {values} of a profile must differ")


class _Setting(msgspec.Struct, frozen=True):
    value: float
    repetition: int
    streams: int = 1
    cached_tokens: int = 0
    output_tokens: int = 1


class _Profiler:
    def __init__(
        self, backend: LlmBackend, model: str, plan: ProfilePlan, now_s: Callable[[], float]
    ) -> None:
        self.plan = plan
        self.timed: list[TimedRequest] = []
        self._backend = backend
        self._model = model
        self._now_s = now_s
        self._words_per_token = 0.5
        self._number = 0

    async def warm_up(self) -> None:
        """The first request of a fresh server pays for warming up; then tokens are counted."""
        for replica in range(self._backend.replicas):
            await self._send(self._prompt(_WARM_UP_WORDS), 2, replica)
        counted, _, _, _ = await self._send(self._prompt(200), 1, 0)
        self._words_per_token = 200.0 / max(1, counted)

    async def prefill(self, tokens: int, repetition: int) -> None:
        if repetition == 0:
            # GPU servers compile or choose kernels when they first meet a length.
            await self._send(self._prompt(self._words(tokens)), 1, 0)
        prompt = self._prompt(self._words(tokens))
        await self._time("prefill", prompt, _Setting(float(tokens), repetition))

    async def cached(self, frac: float, repetition: int) -> None:
        words = self._words(max(self.plan.prompt_tokens))
        start = self._prompt(int(words * frac))
        first, _, _, _ = await self._send(start, 1, 0)
        prompt = f"{start} {self._prompt(words - int(words * frac))}"
        await self._time("cached", prompt, _Setting(frac, repetition, cached_tokens=first))

    async def decode(self, streams: int, repetition: int) -> None:
        plan = self.plan
        asked = plan.decode_prompt_tokens
        words = self._words(asked) if asked else _WARM_UP_WORDS
        prompts = [self._prompt(words) for _ in range(streams)]
        places = [number % self._backend.replicas for number in range(streams)]
        if asked:
            # Computed beforehand: what is timed is decode, not the others' prefill.
            await asyncio.gather(
                *(self._send(text, 1, at) for text, at in zip(prompts, places, strict=True))
            )
        setting = _Setting(
            float(streams), repetition, streams=streams, output_tokens=plan.output_tokens
        )
        await asyncio.gather(
            *(
                self._time("decode", text, setting, at)
                for text, at in zip(prompts, places, strict=True)
            )
        )

    async def _time(self, phase: Phase, prompt: str, setting: _Setting, replica: int = 0) -> None:
        counted, output_tokens, ttft_s, e2e_s = await self._send(
            prompt, setting.output_tokens, replica
        )
        self.timed.append(
            TimedRequest(
                phase=phase,
                setting=setting.value,
                concurrency=setting.streams,
                repetition=setting.repetition,
                input_tokens=counted,
                cached_tokens=setting.cached_tokens,
                output_tokens=output_tokens,
                ttft_s=ttft_s,
                e2e_s=e2e_s,
            )
        )

    def _words(self, tokens: int) -> int:
        return max(1, round(tokens * self._words_per_token))

    def _prompt(self, words: int) -> str:
        """Text that no cache has seen: its first word is new every time."""
        self._number += 1
        numbers = ((self._number * 104_729 + n * 7_919) % 997 for n in range(max(0, words - 1)))
        first = f"{self.plan.mark}{self._number}"
        return " ".join([first, *(f"item{number}" for number in numbers)])

    async def _send(
        self, prompt: str, output_tokens: int, replica: int
    ) -> tuple[int, int, float, float]:
        """Input tokens, output tokens, TTFT and whole time of a request, in seconds."""
        request = LlmRequest(
            kind=self.plan.kind,
            model=self._model,
            prompt=prompt if self.plan.kind == "completion" else "",
            messages=[{"role": "user", "content": prompt}] if self.plan.kind == "chat" else [],
            max_output_tokens=output_tokens,
            temperature=0.0,
        )
        start_s = self._now_s()
        first_s: float | None = None
        counted = (0, 0)
        async with aclosing(self._backend.complete(request, replica)) as chunks:
            async for chunk in chunks:
                if first_s is None and chunk.text:
                    first_s = self._now_s() - start_s
                if chunk.usage is not None:
                    counted = (chunk.usage.input_tokens, chunk.usage.output_tokens)
        e2e_s = self._now_s() - start_s
        return counted[0], counted[1], e2e_s if first_s is None else first_s, e2e_s

"""llama.cpp behind the adapter interface, as the package xllamacpp brings it.

The library is a server: it batches and computes in threads of its own, and is called by HTTP inside
this process. A step here waits for what it sends.
"""

import contextlib
import importlib
import os
import secrets
import selectors
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from steelyard.errors import ConfigError, MissingExtraError
from steelyard.pools.engine.adapter import EngineDelta, EngineSettings, Sampling
from steelyard.pools.engine.llamacpp_http import Address, Event, Exchange
from steelyard.pools.engine.model import read_header
from steelyard.pools.engine.slots import Place, SlotTable

# Granularity of what is told of the cache; llama.cpp itself counts single tokens.
_BLOCK_TOKENS = 32
# More slots bring no more tokens per second on one core, and each one costs memory (docs/adr/0006).
_MAX_SLOTS = 8
# Tokens per batch: a cancel in prefill waits for one, half a second to a second on one core.
_BATCHED_TOKENS = 128
# Copying a slot costs about as much as computing three tokens, and 20 ms per 1,000.
_WORTH_TOKENS = 64
# Memory of the snapshots, beside that of the slots and as a share of it.
_SNAPSHOT_SHARE = 0.25
# Behind this many tokens penalties forget; the server has no word for "never".
_PENALISED_TOKENS = 16384
_WAIT_S = 0.02
# Between two batches the server says something of every request that it computes.
_SILENCE_S = 20.0
_AFTER_SILENCE_S = 5.0
_MAX_SEED = 2**32 - 2
_FINISH: Mapping[str, Literal["stop", "length"]] = MappingProxyType({"limit": "length"})


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    """One call on the way to an answer."""

    kind: Literal["save", "restore", "prefill", "generate"]
    path: str
    body: dict[str, Any]
    snapshot: int = -1
    token_ids: tuple[int, ...] = ()


class _Sequence:
    """One answer: the calls that are left, and what has come and was not read yet."""

    def __init__(self, place: Place, token_ids: list[int], jobs: list[_Job]) -> None:
        self.slot = place.slot
        self.token_ids = token_ids
        self.jobs = deque(jobs)
        self.exchange: Exchange | None = None
        self.generated: list[int] = []
        self.output_tokens = 0
        self.cached_tokens: int | None = None
        self.dropped = False
        self.events: list[Event] = []
        self.refused = ""


class LlamaCppAdapter:
    """A server of xllamacpp with one slot per stream.

    Args:
        model_path: A GGUF file.
        settings: How to run it.
        context_tokens: Longest prompt plus output of the model; the slots may have less.

    Raises:
        MissingExtraError: xllamacpp is not installed.
        ConfigError: The cache has no room for a context.
    """

    def __init__(self, model_path: Path, settings: EngineSettings, context_tokens: int) -> None:
        try:
            # An optional extra, slow to import, and without types.
            library: Any = importlib.import_module("xllamacpp")
        except ImportError as error:
            raise MissingExtraError(
                f"This engine needs xllamacpp, and importing it failed: {error}. "
                "Install it: pip install 'steelyard[engine-llamacpp]'."
            ) from error
        self.max_streams = min(settings.max_streams, _MAX_SLOTS)
        token_bytes = read_header(model_path).kv_bytes_per_token or 1
        slot_bytes = settings.cache_bytes // self.max_streams
        self.context_tokens = min(context_tokens, slot_bytes // token_bytes // 256 * 256)
        if self.context_tokens < 1:
            # Not passed on: the library would take 0 for as much as the model can read.
            raise ConfigError(
                f"The model {model_path} needs {token_bytes:,} bytes of cache per token, and each "
                f"of {self.max_streams} streams has {slot_bytes:,}, which is no room for 256 "
                "tokens; take a smaller model, or a server of its own."
            )
        self.block_tokens = _BLOCK_TOKENS
        snapshot_tokens = 0
        if hasattr(os, "memfd_create"):
            snapshot_tokens = int(settings.cache_bytes * _SNAPSHOT_SHARE / token_bytes)
        self.cache_blocks = (
            snapshot_tokens + self.max_streams * self.context_tokens
        ) // _BLOCK_TOKENS
        key = secrets.token_urlsafe(24)
        parameters = self._parameters(library.CommonParams(), model_path, settings, key)
        self._server: Any = library.Server(parameters)
        port = int(str(self._server.listening_address).rsplit(":", 1)[1])
        self._address = Address(port, key)
        self._table = SlotTable(self.max_streams, snapshot_tokens, _WORTH_TOKENS)
        # Snapshots are files in memory that have no name, and so end with the process.
        self._snapshot_files: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._sequences: dict[int, _Sequence] = {}
        self._next_handle = 0
        self._heard_s = time.monotonic()

    def _parameters(
        self,
        parameters: Any,  # noqa: ANN401 - the library has no types
        model_path: Path,
        settings: EngineSettings,
        key: str,
    ) -> Any:  # noqa: ANN401
        parameters.model.path = str(model_path)
        parameters.model_alias = {settings.model}
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.api_keys = [key]
        parameters.ui = False
        parameters.verbosity = -1
        parameters.n_parallel = self.max_streams
        parameters.n_threads_http = self.max_streams + 4
        # Each slot has cells of its own: with common ones every answer reads the others' as well.
        parameters.kv_unified = False
        parameters.n_ctx = self.max_streams * self.context_tokens
        parameters.n_batch = settings.max_batched_tokens or _BATCHED_TOKENS
        parameters.n_ubatch = parameters.n_batch
        parameters.cpuparams.n_threads = settings.threads
        parameters.cpuparams_batch.n_threads = settings.threads
        # The server's own cache of idle slots gives each of them to one slot only.
        parameters.cache_ram_mib = 0
        parameters.cache_idle_slots = False
        parameters.slot_save_path = "/proc/self/fd/"
        return parameters

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        """What prompt does the model's own chat template make of the messages?"""
        return str(self._address.call("POST", "/apply-template", {"messages": messages})["prompt"])

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text?"""
        body = {"content": text, "add_special": True, "parse_special": True}
        token_ids: list[int] = self._address.call("POST", "/tokenize", body)["tokens"]
        return token_ids

    def add(self, token_ids: list[int], sampling: Sampling) -> int:
        """Queue a sequence and return its handle."""
        if not self._sequences:
            self._heard_s = time.monotonic()
        while not self._table.free:
            self.step()
        place = self._table.take(token_ids)
        handle = self._next_handle
        self._next_handle += 1
        sequence = _Sequence(place, token_ids, self._jobs(place, token_ids, sampling))
        self._sequences[handle] = sequence
        self._start_next(handle, sequence)
        return handle

    def _jobs(self, place: Place, token_ids: list[int], sampling: Sampling) -> list[_Job]:
        jobs: list[_Job] = []
        if place.displaced:
            jobs.append(self._save(place.slot, place.displaced))
        if place.snapshot is not None:
            name = place.snapshot
            path = f"/slots/{place.slot}?action=restore"
            copied = {"filename": str(name)}
            jobs.append(_Job(kind="restore", path=path, body=copied, snapshot=name))
        prompt: dict[str, Any] = {
            "prompt": token_ids,
            "id_slot": place.slot,
            "cache_prompt": True,
            "stream": True,
            "return_tokens": True,
            # Without these events a closed connection is noticed after the prompt only.
            "return_progress": True,
        }
        if len(token_ids) - place.shared_tokens >= _WORTH_TOKENS and self._snapshot_room:
            # Saved before the answer begins: from then on others may ask for the same prefix.
            body = {**prompt, "n_predict": 0, "temperature": 0.0}
            jobs.append(_Job(kind="prefill", path="/completion", body=body))
            jobs.append(self._save(place.slot, tuple(token_ids)))
        body = {**prompt, **_sampling_fields(sampling)}
        return [*jobs, _Job(kind="generate", path="/completion", body=body)]

    @property
    def _snapshot_room(self) -> bool:
        return hasattr(os, "memfd_create")

    def _save(self, slot: int, token_ids: tuple[int, ...]) -> _Job:
        name = os.memfd_create(f"slot{slot}")
        self._snapshot_files.add(name)
        path = f"/slots/{slot}?action=save"
        body = {"filename": str(name)}
        return _Job(kind="save", path=path, body=body, snapshot=name, token_ids=token_ids)

    def _start_next(self, handle: int, sequence: _Sequence) -> None:
        job = sequence.jobs[0]
        sequence.exchange = Exchange(self._address, job.path, job.body)
        self._selector.register(sequence.exchange.socket, selectors.EVENT_READ, handle)

    def step(self) -> None:
        """Take what the server has sent; blocks for a moment when that is nothing.

        Raises:
            RuntimeError: The server has said nothing for too long.
        """
        ready = self._selector.select(_WAIT_S)
        now_s = time.monotonic()
        if ready:
            self._heard_s = now_s
        elif now_s - self._heard_s > _SILENCE_S:
            self._heard_s = now_s - _SILENCE_S + _AFTER_SILENCE_S
            raise RuntimeError(f"llama.cpp computed nothing for {_SILENCE_S:g} s")
        for key, _ in ready:
            handle = int(key.data)
            self._receive(handle, self._sequences[handle])

    def _receive(self, handle: int, sequence: _Sequence) -> None:
        exchange = sequence.exchange
        if exchange is None:
            return
        job = sequence.jobs[0]
        for event in exchange.receive():
            if event.error is not None:
                sequence.refused = event.error.message or "it gives no reason"
            progress = event.prompt_progress
            if progress is not None and sequence.cached_tokens is None:
                sequence.cached_tokens = progress.cache
            elif progress is None and job.kind == "generate":
                sequence.events.append(event)
        if exchange.done:
            self._hang_up(sequence)
            sequence.jobs.popleft()
            self._job_done(sequence, job, exchange.failure)
            if sequence.dropped:
                self._end(handle)
            elif sequence.jobs and not sequence.refused:
                self._start_next(handle, sequence)

    def _job_done(self, sequence: _Sequence, job: _Job, failure: str) -> None:
        match job.kind:
            case "save" if failure:
                self._drop([job.snapshot])
            case "save":
                self._drop(self._table.saved(job.snapshot, job.token_ids))
            case "restore" if failure:
                # The prompt is computed instead.
                self._table.lost(job.snapshot)
                self._drop([job.snapshot])
            case "prefill" | "generate":
                sequence.refused = sequence.refused or failure
            case _:
                pass

    def _drop(self, names: list[int]) -> None:
        for name in self._snapshot_files.intersection(names):
            self._snapshot_files.remove(name)
            os.close(name)

    def _hang_up(self, sequence: _Sequence) -> None:
        if sequence.exchange is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(sequence.exchange.socket)
            sequence.exchange.close()
            sequence.exchange = None

    def read(self, handle: int) -> EngineDelta:
        """What is new in the sequence since the last read?"""
        sequence = self._sequences[handle]
        events, sequence.events = sequence.events, []
        finish: Literal["stop", "length"] | None = None
        said = [event for event in events if event.tokens]
        before = sequence.output_tokens
        for event in events:
            sequence.output_tokens = max(sequence.output_tokens, event.tokens_predicted)
            sequence.generated.extend(event.tokens)
            if event.stop:
                finish = _FINISH.get(event.stop_type, "stop")
        delta = EngineDelta(
            output_tokens=sequence.output_tokens - before,
            token_ids=tuple([token for event in said for token in event.tokens]),
            pieces=tuple([event.content.encode("utf-8", "replace") for event in said]),
            logprobs=tuple(
                [entry.logprob for event in said for entry in event.completion_probabilities]
            ),
            finish=finish,
            cached_tokens=sequence.cached_tokens,
            refused=sequence.refused,
        )
        if finish is not None or sequence.refused:
            self._end(handle)
        return delta

    def cancel(self, handle: int) -> None:
        """Drop the sequence; a prompt that is just being computed stops after its batch."""
        if handle in self._sequences:
            self._end(handle)

    def _end(self, handle: int) -> None:
        sequence = self._sequences[handle]
        copying = sequence.exchange is not None and sequence.jobs[0].kind in {"save", "restore"}
        # The server has not heard of the files of later copies.
        later = [*sequence.jobs][1 if copying else 0 :]
        self._drop([job.snapshot for job in later if job.kind == "save"])
        if copying:
            # A copy takes milliseconds, and its file must not be closed before its end.
            sequence.jobs, sequence.dropped = deque([sequence.jobs[0]]), True
            return
        self._hang_up(sequence)
        del self._sequences[handle]
        known = [*sequence.token_ids, *sequence.generated[:-1]] if sequence.generated else ()
        self._table.release(sequence.slot, known)


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "n_predict": sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or 0,
        "seed": sampling.seed % _MAX_SEED,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": _PENALISED_TOKENS,
        # Nothing of its own: the library would cut off unlikely tokens unasked.
        "samplers": ["penalties", "temperature", "top_k", "top_p"],
        "n_probs": 1 if sampling.logprobs else 0,
    }
    if sampling.grammar is not None:
        fields["grammar"] = sampling.grammar
    elif sampling.json_schema is not None:
        fields["json_schema"] = msgspec.json.decode(sampling.json_schema)
    return fields

"""A pool under further names of its models: an alias is put back before the pool is asked."""

from collections.abc import AsyncGenerator, Mapping

import msgspec

from steelyard.pools.backend import (
    Cut,
    Embeddings,
    Ended,
    LlmBackend,
    LlmChunk,
    LlmRequest,
    QuickRelayBackend,
    RelayBackend,
    RelayedAnswer,
    RelayRequest,
    RelayTarget,
    ReplicaWatcher,
)


def aliased(backend: LlmBackend, models: Mapping[str, str]) -> LlmBackend:
    """A pool that is also asked by aliases.

    Args:
        backend: The pool.
        models: The pool's own model by alias.

    Returns:
        The pool itself where it has no alias.
    """
    if not models:
        return backend
    if isinstance(backend, RelayBackend):
        return AliasedRelayPool(backend, backend, models)
    return AliasedPool(backend, models)


class AliasedPool:
    """A pool that is also asked by aliases; see `aliased`."""

    def __init__(self, backend: LlmBackend, models: Mapping[str, str]) -> None:
        self._backend = backend
        self._own_names = dict(models)

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        return self._backend.replicas

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work?"""
        return self._backend.supports_embeddings

    def models(self) -> tuple[str, ...]:
        """Which models are served, aliases last?"""
        return (*self._backend.models(), *self._own_names)

    async def start(self, watch: ReplicaWatcher | None = None) -> None:
        """Bring the replicas up."""
        await self._backend.start(watch)

    async def close(self) -> None:
        """Stop everything."""
        await self._backend.close()

    def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece; see `LlmBackend.complete`."""
        return self._backend.complete(self._named(request), replica)

    async def embed(self, texts: list[str], model: str, replica: int) -> Embeddings:
        """Turn texts into vectors; see `LlmBackend.embed`."""
        return await self._backend.embed(texts, self._own_names.get(model, model), replica)

    def _named(self, request: LlmRequest) -> LlmRequest:
        name = self._own_names.get(request.model)
        if name is None:
            return request
        raw = {**request.raw_body, "model": name} if request.raw_body else request.raw_body
        return msgspec.structs.replace(request, model=name, raw_body=raw)


class AliasedRelayPool(AliasedPool):
    """The same for a pool whose answers are handed on: they tell the model that answered."""

    def __init__(self, backend: LlmBackend, relay: RelayBackend, models: Mapping[str, str]) -> None:
        super().__init__(backend, models)
        self._relay = relay
        self._quick = relay if isinstance(relay, QuickRelayBackend) else None

    def relays(self, path: str) -> bool:
        """Can `relay` be asked this path?"""
        return self._relay.relays(path)

    async def relay(self, asked: RelayRequest, replica: int, target: RelayTarget) -> RelayedAnswer:
        """Answer a request byte for byte; see `RelayBackend.relay`."""
        return await self._relay.relay(self._put_back(asked), replica, target)

    def relay_now(
        self, asked: RelayRequest, replica: int, target: RelayTarget, ended: Ended
    ) -> Cut | None:
        """As `relay`, within one call; None where the pool cannot, and nothing was sent."""
        if self._quick is None:
            return None
        return self._quick.relay_now(self._put_back(asked), replica, target, ended)

    def _put_back(self, asked: RelayRequest) -> RelayRequest:
        request = self._named(asked.request)
        if request is asked.request:
            return asked
        # Read from the bytes: what is asked of another API than chat is not in `raw_body`.
        document = msgspec.json.decode(asked.body, type=dict[str, msgspec.Raw])
        document["model"] = msgspec.Raw(msgspec.json.encode(request.model))
        body = msgspec.json.encode(document)
        return msgspec.structs.replace(asked, request=request, body=body)

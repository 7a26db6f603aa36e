import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.engine.bert import Floats
from steelyard.pools.engine.embedding_loop import EmbeddingLoop
from steelyard.pools.engine.frames import Broken, Done, Embed, FromChild, Rejected, Vectors


class Lengths:
    """A model whose vectors hold the length of the text."""

    max_text_tokens = 256

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.failures = 0

    def encode(self, text: str) -> list[int]:
        return [1] * len(text)

    def embed(self, rows: list[list[int]]) -> Floats:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no memory")
        self.batches.append([len(row) for row in rows])
        return np.array([[len(row), 0.0] for row in rows], dtype=np.float32)


class Rig:
    def __init__(self) -> None:
        self.model = Lengths()
        self.sent: list[FromChild] = []
        self.loop = EmbeddingLoop(self.model, "lengths", self.sent.append)

    def run(self) -> None:
        for _ in range(1000):
            self.loop.step()
            if not self.loop.running:
                return

    def lengths(self, request_id: int) -> list[float]:
        [found] = [
            one for one in self.sent if isinstance(one, Vectors) and one.request_id == request_id
        ]
        return list(np.frombuffer(found.values, dtype="<f4").reshape(found.count, 2)[:, 0])


@given(st.lists(st.lists(st.integers(1, 256), min_size=1, max_size=20), min_size=1, max_size=6))
def test_every_request_gets_its_vectors_in_order(requests: list[list[int]]) -> None:
    rig = Rig()
    for number, lengths in enumerate(requests):
        rig.loop.submit(Embed(number, tuple("x" * length for length in lengths)))
    rig.run()
    for number, lengths in enumerate(requests):
        assert rig.lengths(number) == lengths
    assert all(max(batch) * len(batch) <= 1024 for batch in rig.model.batches)
    assert sum(isinstance(one, Done) for one in rig.sent) == len(requests)


def test_texts_of_several_requests_share_a_batch() -> None:
    rig = Rig()
    rig.loop.submit(Embed(0, ("x" * 10,)))
    rig.loop.submit(Embed(1, ("x" * 11, "x" * 250)))
    rig.loop.step()
    assert rig.model.batches == [[10, 11]]


def test_a_text_that_is_too_long_is_rejected_and_not_cut() -> None:
    rig = Rig()
    rig.loop.submit(Embed(7, ("x", "x" * 257)))
    [rejected] = rig.sent
    assert isinstance(rejected, Rejected)
    assert "Text 1 has 257 tokens; lengths takes 256" in rejected.message
    assert rig.loop.running == 0


def test_a_cancelled_request_is_not_computed() -> None:
    rig = Rig()
    rig.loop.submit(Embed(0, ("x",)))
    rig.loop.submit(Embed(1, ("xx",)))
    rig.loop.cancel(0)
    rig.run()
    assert rig.model.batches == [[2]]


def test_one_failure_is_tried_again_and_two_end_the_child() -> None:
    rig = Rig()
    rig.model.failures = 1
    rig.loop.submit(Embed(0, ("x",)))
    rig.run()
    assert rig.lengths(0) == [1.0]
    rig.model.failures = 2
    rig.loop.submit(Embed(1, ("x",)))
    rig.loop.step()
    rig.loop.step()
    assert rig.loop.broken
    assert isinstance(rig.sent[-1], Broken)

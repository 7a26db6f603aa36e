import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import PoolProtocolError
from steelyard.pools import sse
from steelyard.pools.sse import SseParser

TEXTS = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1))


@given(TEXTS, st.data(), st.sampled_from([b"\n", b"\r\n"]))
def test_gives_the_same_events_wherever_the_bytes_are_cut(
    texts: list[str], data: st.DataObject, newline: bytes
) -> None:
    stream = b"".join(b"data: " + text.encode() + newline + newline for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = SseParser()
    events: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += parser.feed(stream[start:end])
    assert events == texts


def test_joins_lines_of_one_event_and_skips_comments_and_other_fields() -> None:
    parser = SseParser()
    assert parser.feed(b": ping\n\nevent: x\nid: 3\ndata:a\ndata: b\n\n") == ["a\nb"]


def test_gives_the_last_event_without_its_empty_line_at_the_end() -> None:
    parser = SseParser()
    assert parser.feed(b"data: [DONE]") == []
    assert parser.finish() == ["[DONE]"]


def test_refuses_endless_events_and_broken_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10)
    with pytest.raises(PoolProtocolError, match="over 10 bytes"):
        SseParser().feed(b"data: aaaaaaaaaaaa")
    with pytest.raises(PoolProtocolError, match="UTF-8"):
        SseParser().feed(b"data: \xff\n\n")

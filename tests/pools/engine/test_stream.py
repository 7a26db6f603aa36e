from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.engine.stream import TextStream

SMALL = st.text(st.sampled_from("abé😀"), max_size=20)


@given(SMALL, st.lists(st.text(st.sampled_from("abé"), min_size=1, max_size=4)), st.data())
def test_cuts_at_the_first_stop_string_wherever_tokens_end(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    stream = TextStream(tuple(stops))
    sent = ""
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        sent += stream.feed(raw[start:end])
    sent += stream.finish()
    if not any(stop in text for stop in stops):
        assert sent == text
        assert not stream.stopped
    else:
        assert stream.stopped
        assert text.startswith(sent)
        assert not any(stop in sent for stop in stops)


def test_sends_no_half_characters() -> None:
    stream = TextStream(())
    first, second = "é".encode()
    assert stream.feed(bytes([first])) == ""
    assert stream.feed(bytes([second])) == "é"

"""A head that is known by its bytes says what the parser reads of them, or nothing."""

import httptools
from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.known_head import known_head


class Parsed:
    """What llhttp reads of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.whole = 0
        self.parser = httptools.HttpRequestParser(self)
        self.is_broken = False
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_broken = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole += 1


names = st.sampled_from([b"Host", b"X", b"Content-Length", b"content-length", b"Transfer-Encoding"])
values = st.sampled_from([b"a", b"3", b"10", b"chunked", b"", b" 3", b"keep-alive"])
pairs = st.lists(st.tuples(names, values), max_size=4)
bodies = st.binary(max_size=12)


def written(headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return b"POST /v1 HTTP/1.1\r\n" + lines + b"\r\n" + body


@given(pairs, bodies, st.data())
def test_what_is_known_is_what_the_parser_reads(
    headers: list[tuple[bytes, bytes]], body: bytes, data: st.DataObject
) -> None:
    headers = [*headers, (b"Content-Length", b"%d" % len(body))]
    sent = written(headers, body)
    first = Parsed(sent)
    known = None if first.is_broken else known_head(sent, first.headers)
    other = data.draw(bodies)
    again = [(n, b"%d" % len(other) if n.lower() == b"content-length" else v) for n, v in headers]
    told = data.draw(
        st.sampled_from(
            [
                *(written(again, other), written(again, other) + sent, written(again, other)[:-1]),
                *(written(headers, other), written([*again, (b"X", b"y")], other), b"\r\n" + sent),
                written(again, other).replace(b"POST", b"PUT"),
            ]
        )
    )
    found = None if known is None else known.body_in(told)
    if found is None:
        return
    read = Parsed(told)
    assert not read.is_broken
    assert (read.whole, read.body) == (1, found)
    lengths = (b"content-length", b"transfer-encoding")
    kept = [pair for pair in read.headers if pair[0].lower() not in lengths]
    assert kept == [pair for pair in first.headers if pair[0].lower() not in lengths]


def test_the_usual_head_is_known_and_what_ends_the_connection_is_not() -> None:
    usual = [(b"Host", b"a"), (b"Content-Length", b"2"), (b"Connection", b"keep-alive")]
    known = known_head(written(usual, b"{}"), usual)
    assert known is not None
    longer = [usual[0], (b"Content-Length", b"11"), usual[2]]
    assert known.body_in(written(longer, b"hello world")) == b"hello world"
    for more in ((b"Connection", b"close"), (b"Expect", b"100-continue"), (b"Trailer", b"x")):
        assert known_head(written([*usual[:2], more], b"{}"), [*usual[:2], more]) is None

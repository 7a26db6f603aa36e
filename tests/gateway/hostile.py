"""Hostile HTTP: requests that are wrong in one or several ways, drawn from a seed."""

import json
import random

BODY = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}).encode()
PATHS = (
    *(b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings", b"/v1/models", b"/v1/"),
    *(
        b"/v1/../metrics",
        b"/v1/%2e%2e/api",
        b"/healthz",
        b"//v1/models",
        b"http://x/v1/models",
        b"*",
    ),
)
METHODS = (
    *(b"POST", b"POST", b"POST", b"GET", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI", b"X"),
)
VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"")
HEADERS = (
    *(b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length: +9"),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 3, 4", b"Content-Length : 4"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: gzip"),
    *(b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding:\x0bchunked"),
    *(b"Expect: 100-continue", b"Connection: close", b"Connection: Upgrade\r\nUpgrade: h2c"),
    *(b"Upgrade: websocket", b"Host: a\r\nHost: b", b" folded: x", b"No colon", b": empty"),
    *(
        b"X\x00: nul",
        b"X: a\rb",
        b"X: a\nSteelyard-Task: b",
        b"X: \xff\xfe",
        b"Cookie: " + b"a" * 900,
    ),
    *(b"Steelyard-Task: a/b", b"Steelyard-Deadline: nan", b"Steelyard-Budget-Usd: -1"),
    *(b"Steelyard-Task: \xe9", b"Steelyard-Journal: 1 2 3 4", b"Idempotency-Key: t/999999999999"),
    *(b"traceparent: 00-0-0-00", b"Authorization: Bearer \xff", b"Content-Encoding: gzip"),
)
BODIES = (
    *(BODY, BODY[:-1], BODY + b"}", b"", b"null", b"[]", b"3", b'"x"', b"\xff\xfe\x00", b"{}"),
    *(b"[" * 5000, b'{"a":' * 5000, b'{"messages":' + b"[" * 100 + b"]" * 100 + b"}"),
    *(b'{"model":"\\ud800","messages":[]}', b'{"model":1e999}', b'{"model":"scripted","n":1e99}'),
    *(b'{"model":"scripted","messages":[{"role":"user","content":"\xc3\x28"}]}',),
    *(BODY.replace(b"Hi", b"\\u0000"), BODY.replace(b"Hi", b"a" * 9000)),
    *(BODY[:-1] + b',"stream":"yes"}', BODY[:-1] + b',"max_tokens":99999999999999999999}'),
    *(BODY[:-1] + b',"model":"other"}', BODY[:-1] + b',"stream":true,"stream_options":[]}'),
    *(BODY[:-1] + b',"tools":{}}', BODY[:-1] + b',"user":{"a":1}}', BODY[:-1] + b',"stop":[[]]}'),
)


def hostile_request(chance: random.Random) -> bytes:
    """One request; about half are wrong in their head, most of the others in their body."""
    body = chance.choice(BODIES)
    lines = [b" ".join((chance.choice(METHODS), chance.choice(PATHS), chance.choice(VERSIONS)))]
    if chance.random() < 0.9:
        lines.append(b"Host: localhost")
    framing = chance.random()
    if framing < 0.7:
        lines.append(b"Content-Length: %d" % len(body))
    elif framing < 0.85:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(chance, body)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 40))):
        lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(HEADERS))
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if chance.random() < 0.3:
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        whole = bytes(broken)
    if chance.random() < 0.1:
        whole = whole[: chance.randrange(len(whole))]
    if chance.random() < 0.1:
        whole += whole
    return whole


def _chunked(chance: random.Random, body: bytes) -> bytes:
    sizes = (b"%x" % len(body), b"%x;ext=1" % len(body), b"0x5", b"-1", b"fffffffff", b"", b" 5")
    size = sizes[0] if chance.random() < 0.5 else chance.choice(sizes)
    end = chance.choice((b"\r\n0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n", b"\n0\n\n", b""))
    return size + b"\r\n" + body + end


def pieces(chance: random.Random, whole: bytes) -> list[bytes]:
    """The same bytes, cut where chance wants it."""
    if chance.random() < 0.6 or len(whole) < 2:
        return [whole]
    cuts = sorted({chance.randrange(1, len(whole)) for _ in range(chance.randrange(1, 8))})
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

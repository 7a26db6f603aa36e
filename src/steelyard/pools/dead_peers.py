"""How a server that is gone is told from one that computes: TCP's own questions and answers.

A host that lost its network refuses nothing: what was sent to it is sent again and again, for some
fifteen minutes by Linux's defaults, and a request that waits for its answer hears nothing at all
until its limit, which must be as long as the longest answer takes. The kernel of a host that is
there acknowledges what it gets whatever its programs do, so silence below HTTP means that host or
network are gone. See ADR 32.
"""

import socket

# What was sent must be acknowledged in this time, or the connection ends.
SILENCE_S = 6.0
# A connection on which nothing moves is asked after so long, then every second.
_ASK_AFTER_S = 2
_ASK_EVERY_S = 1


def notice_loss(sock: socket.socket) -> None:
    """Let the kernel end a connection whose other end has been silent for `SILENCE_S`.

    Its end is then a `TimeoutError`. Silence is of the kernel there, not of its program: a server
    that computes for minutes keeps its connections.

    Args:
        sock: A connected TCP socket.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    asked = int(SILENCE_S - _ASK_AFTER_S) // _ASK_EVERY_S
    # By name: not every system has all of them, and each helps without the others.
    for option, value in (
        ("TCP_KEEPIDLE", _ASK_AFTER_S),
        ("TCP_KEEPINTVL", _ASK_EVERY_S),
        ("TCP_KEEPCNT", asked),
        ("TCP_USER_TIMEOUT", int(1000 * SILENCE_S)),
    ):
        number = getattr(socket, option, None)
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)

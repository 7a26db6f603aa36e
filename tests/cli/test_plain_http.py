"""One small GET."""

import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from steelyard.cli.plain_http import get


class _Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/here")
            self.end_headers()
            return
        body = (self.headers.get("Authorization") or "no key").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_a_key_goes_to_the_server_that_was_named_and_no_further(server: str) -> None:
    assert get(f"{server}/here", "secret", timeout_s=10.0) == b"Bearer secret"
    assert get(f"{server}/moved", "secret", timeout_s=10.0) == b"no key"

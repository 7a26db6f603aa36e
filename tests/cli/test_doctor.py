"""`steelyard doctor` against a real server that is missing, and one that answers."""

import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run


class _Models(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "m"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Generator[str]:
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Models)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}/v1"
    listening.shutdown()
    listening.server_close()
    thread.join()


def checks(run: Run, tmp_path: Path, url: str, code: int, port: int = 0) -> dict[str, Any]:
    config = tmp_path / "steelyard.toml"
    config.write_text(
        f'[gateway]\nport = {port}\n[pools.far]\nkind = "endpoint"\nbase_urls = ["{url}"]\n'
        'models = ["m"]\nusd_per_hour = 1.0\n',
        encoding="utf-8",
    )
    ran = run("doctor", "--config", str(config), "--json")
    assert ran.code == code, ran.out
    found = json.loads(ran.out)
    assert found["ok"] == (code == 0)
    return {f"{one['area']} {one['name']}": one for one in found["checks"]}


def test_everything_is_looked_at_and_a_pool_that_answers_is_fine(
    run: Run, tmp_path: Path, server: str
) -> None:
    found = checks(run, tmp_path, server, 0)
    areas = {one["area"] for one in found.values()}
    assert areas == {"engine", "processor", "sandbox", "store", "port", "clock", "pool"}
    assert found[f"pool far at {server}"]["state"] == "ok"
    for one in found.values():
        assert bool(one.get("cure")) == (one["state"] != "ok")
    assert list(tmp_path.iterdir()) == [tmp_path / "steelyard.toml"]


def test_a_pool_without_a_server_is_a_failure_with_its_cure(run: Run, tmp_path: Path) -> None:
    found = checks(run, tmp_path, "http://127.0.0.1:9/v1", 1)
    assert "start the server" in found["pool far at http://127.0.0.1:9/v1"]["cure"]


def test_a_taken_port_is_a_failure(run: Run, tmp_path: Path, server: str) -> None:
    port = int(server.rpartition(":")[2].removesuffix("/v1"))
    assert checks(run, tmp_path, server, 1, port)[f"port 127.0.0.1:{port}"]["state"] == "failure"


def test_a_file_that_is_no_log_is_a_failure(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("steelyard.db").write_text("no log", encoding="utf-8")
    ran = run("doctor")
    assert ran.code == 1
    assert "failure  store" in ran.out

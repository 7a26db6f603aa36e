"""How each gateway is started, and what the kernel says of its processes."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

KEY = "sk-benchmark-0123456789"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_READY_S = 90.0

_STEELYARD = """
[gateway]
port = {port}
api_keys_file = "keys"
[store]
path = "log.db"
[pools.arm]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{upstream}/v1"]
models = ["mock"]
usd_per_hour = 0.1
curve = {{ concurrency_cap = 1024 }}
[pools.gpu]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{upstream}/v1", "http://127.0.0.1:{upstream}/v1"]
models = ["mock"]
usd_per_hour = 4.0
curve = {{ concurrency_cap = 1024 }}
[pools.vendor]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{upstream}/v1"]
models = ["mock"]
token_price = {{ input_usd_per_million = 1.0, output_usd_per_million = 4.0 }}
curve = {{ concurrency_cap = 1024 }}
"""
# Which provider, and where: Portkey is told with every request.
_PORTKEY = {
    "x-portkey-provider": "openai",
    "x-portkey-custom-host": "http://127.0.0.1:{upstream}/v1",
}
_LITELLM = """
model_list:
  - model_name: mock
    litellm_params:
      model: openai/mock
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
general_settings:
  master_key: {key}
"""
_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000000;
    location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection ""; }}
  }}
}}
"""


class Gateway:
    """A gateway that can be started.

    Args:
        name: What the table calls it.
        command: Makes the command line and its files from (folder, port, port of the upstream).
        key: Bearer key that clients send; empty for none.
        headers: Further headers that they send, `{upstream}` for the port of the upstream.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[Path, int, int], list[str]],
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.key = key
        self.command = command
        self._headers = dict(headers or {})

    def headers(self, upstream: int) -> dict[str, str]:
        """Headers that clients send beside the key."""
        return {name: value.format(upstream=upstream) for name, value in self._headers.items()}

    @contextmanager
    def running(
        self, folder: Path, port: int, upstream: int, core: int | None
    ) -> Iterator[tuple[int, float]]:
        """Start it; yields its process id and the seconds to its first answer."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "output.txt").open("wb") as output:
            started_s = time.monotonic()
            process = subprocess.Popen(  # noqa: S603
                self.command(folder, port, upstream),
                cwd=folder,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            try:
                sent = self.headers(upstream)
                if self.key:
                    sent["Authorization"] = f"Bearer {self.key}"
                cold_s = _first_answer(port, sent, started_s, process)
                yield process.pid, cold_s
            finally:
                process.terminate()
                try:
                    process.wait(20.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def steelyard(python: str = sys.executable, name: str = "steelyard") -> Gateway:
    """This project, with a key, three pools for the policy, and the log on disk."""

    def command(folder: Path, port: int, upstream: int) -> list[str]:
        (folder / "keys").write_text(KEY + "\n")
        (folder / "keys").chmod(0o600)
        text = _STEELYARD.format(port=port, upstream=upstream)
        (folder / "steelyard.toml").write_text(text)
        return [python, "-m", "steelyard", "up", "--config", str(folder / "steelyard.toml")]

    return Gateway(name, command, KEY)


def peers(folder: Path | None) -> tuple[list[Gateway], list[str]]:
    """Peers that are installed, and the names of those that are not.

    Args:
        folder: Holds environments in `routers` (vllm-router, sglang-router), `smg` and `litellm`,
            and npm's `portkey`.
    """
    found: list[Gateway] = []
    missing: list[str] = []
    for name, make in (
        ("nginx", _nginx),
        ("vllm-router", _vllm_router),
        ("sglang-router", _sglang_router),
        ("smg", _smg),
        ("portkey", _portkey),
        ("litellm", _litellm),
    ):
        peer = make(folder)
        if peer is None:
            missing.append(name)
        else:
            key = KEY if name in {"litellm", "portkey"} else ""
            found.append(Gateway(name, peer, key, _PORTKEY if name == "portkey" else None))
    return found, missing


def _nginx(_: Path | None) -> Callable[[Path, int, int], list[str]] | None:
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        return None

    def command(folder: Path, port: int, upstream: int) -> list[str]:
        text = _NGINX.format(folder=folder, port=port, upstream=upstream)
        (folder / "nginx.conf").write_text(text)
        return [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]

    return command


def _vllm_router(peers: Path | None) -> Callable[[Path, int, int], list[str]] | None:
    program = _installed(peers, "routers/bin/vllm-router")
    if program is None:
        return None

    def command(_: Path, port: int, upstream: int) -> list[str]:
        to = ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"]
        return [program, "--host", "127.0.0.1", "--port", str(port), *to, *_quiet(port)]

    return command


def _sglang_router(peers: Path | None) -> Callable[[Path, int, int], list[str]] | None:
    program = _installed(peers, "routers/bin/python")
    if program is None or _installed(peers, "routers/bin/smg") is None:
        return None

    def command(_: Path, port: int, upstream: int) -> list[str]:
        to = ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"]
        run = [program, "-m", "sglang_router.launch_router"]
        return [*run, "--host", "127.0.0.1", "--port", str(port), *to, *_quiet(port)]

    return command


def _smg(peers: Path | None) -> Callable[[Path, int, int], list[str]] | None:
    program = _installed(peers, "smg/bin/smg")
    if program is None:
        return None

    def command(_: Path, port: int, upstream: int) -> list[str]:
        to = ["--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"]
        listen = ["--host", "127.0.0.1", "--port", str(port)]
        return [program, "launch", *listen, *to, *_quiet(port)]

    return command


def _portkey(peers: Path | None) -> Callable[[Path, int, int], list[str]] | None:
    script = "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    program, node = _installed(peers, script), shutil.which("node")
    if program is None or node is None:
        return None

    def command(_: Path, port: int, upstream: int) -> list[str]:
        del upstream
        return [node, program, f"--port={port}", "--headless"]

    return command


def _litellm(peers: Path | None) -> Callable[[Path, int, int], list[str]] | None:
    program = _installed(peers, "litellm/bin/litellm")
    if program is None:
        return None

    def command(folder: Path, port: int, upstream: int) -> list[str]:
        (folder / "litellm.yaml").write_text(_LITELLM.format(upstream=upstream, key=KEY))
        listen = ["--host", "127.0.0.1", "--port", str(port)]
        return [program, "--config", str(folder / "litellm.yaml"), *listen]

    return command


def _quiet(port: int) -> list[str]:
    # The routers' own metrics need a port, too.
    return ["--log-level", "error", "--prometheus-port", str(port + 5000)]


def _installed(folder: Path | None, program: str) -> str | None:
    path = None if folder is None else folder.absolute() / program
    return str(path) if path is not None and path.exists() else None


def _first_answer(
    port: int, sent: Mapping[str, str], started_s: float, process: subprocess.Popen[bytes]
) -> float:
    body = b'{"model":"mock","messages":[{"role":"user","content":"Hi"}]}'
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"Content-Type": "application/json", **sent}
    while time.monotonic() - started_s < _READY_S:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode}; see its output.txt")
        try:
            asked = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(asked, timeout=10.0) as answer:  # noqa: S310
                answer.read()
                return time.monotonic() - started_s
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"it gave no answer within {_READY_S:g} s; see its output.txt")


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        try:
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue
        found.extend(int(child) for child in text.split())
    return found


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and all below it, from /proc/PID/stat."""
    ticks = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Proportional set size of a process and all below it, MB."""
    total_kb = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_kb += int(line.split()[1])
    return total_kb * 1024 / 1e6

"""What happens when a provider is lost? Three providers, four faults, 1,000 tasks under each.

Run as root: `python scripts/drill_providers [--tasks 1000] [--rate 40] [--out drill]`. Gateway
and clients are on one host, each provider on one of its own (`network.py`); `steelyard plan
--demand` says how many servers each provider must have, so that any one of them may be lost. Then,
while tasks of three steps arrive at a steady rate, one provider after the other

- `cut`: loses its network: connections hang, nothing is refused;
- `slow`: answers late, as packets are delayed or its link is narrow;
- `error`: answers HTTP 500, and 429 with Retry-After;
- `half`: breaks streams off in the middle, and cuts whole bodies short;

and works again after the fault's tasks have arrived. Load goes on until it serves again. In the end
`cap`: a reload gives the most used provider a spend cap that is reached under the load. Nothing
acknowledged may be lost, done twice without an attempt in the log, or told wrongly; at least 99 %
of the tasks must be in time, and budgets of tasks and of keys and the cap must hold. A policy that
predicts nothing (`--policy join_shortest_of_two`) keeps all three in use, and fails that under
`slow`: no breaker opens for a provider that is late. Writes the log, the faults' times
(`marks.json`) and the report (`report.html`) to --out. Status 1 where it fails, 77 where the
machine cannot have such networks.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import uvloop

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT / "benchmarks" / "gateway")]

from drill_providers import cap  # noqa: E402
from drill_providers.clients import STEPS, Clients  # noqa: E402
from drill_providers.network import Network, why_not  # noqa: E402
from drill_providers.provider import SERVICE_S  # noqa: E402
from drill_providers.verdict import AFTER, Books, open_tasks, promises, verdict  # noqa: E402
from steelyard.ledger.ledger import Ledger  # noqa: E402
from steelyard.store.sqlite_log import read_events  # noqa: E402

PROVIDERS = ("ash", "birch", "cedar")
FAULTS = ("cut", "slow", "error", "half")
SKIPPED = 77
DEADLINE_S = 15.0
TASK_USD = 0.001
CAPPED_USD = 0.0005
_CAP = 8
_PRICES = {"ash": 1.0, "birch": 1.1, "cedar": 1.2}
# A server does _CAP / SERVICE_S steps per second; so much of that is planned with.
_FILLED = 0.8
_IDLE_S = 8.0
_BACK_S = 75.0
_GATEWAY = """
[gateway]
port = 8080
require_key = true
task_idle_s = {idle_s}
[store]
path = "events.db"
[policy]
name = "{policy}"
"""
_POOL = """
[pools.{name}]
kind = "endpoint"
base_urls = {urls}
models = ["mock"]
provider = "{name}"
usd_per_hour = {price}
curve = {{ ttft_floor_s = 0.1, itl_base_s = 0.02, concurrency_cap = {cap}, context_tokens = 2048 }}
"""
_URL = "http://127.0.0.1:8080"


def planned(rate_per_s: float, out: Path) -> dict[str, int]:
    """How many servers of each provider, so that any one provider may be lost?"""
    each_per_s = _FILLED * _CAP / SERVICE_S
    demand = {
        "offers": [
            {"name": name, "provider": name, "usd_per_hour": usd} for name, usd in _PRICES.items()
        ],
        "buckets": [{"name": "ask", "rate_per_s": rate_per_s}],
        "capacity_per_s": [[each_per_s]] * len(_PRICES),
        "constraints": {"survive_provider_loss_frac": 1.0},
    }
    file = out / "demand.json"
    file.write_text(json.dumps(demand), encoding="ascii")
    told = steelyard(out, "plan", "--demand", str(file), "--json")
    fleet: dict[str, int] = json.loads(told)["fleet"]
    return fleet


def steelyard(out: Path, *arguments: str) -> str:
    """What does a command print?"""
    command = [sys.executable, "-m", "steelyard", *arguments]
    done = subprocess.run(command, cwd=out, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return done.stdout


def say(line: str) -> None:
    """Print at once: the outer process may be read by a pipe."""
    print(line, flush=True)


class Drill:
    """One run of the drill, on the hub.

    Args:
        network: The hosts; its namespaces exist.
        given: What is asked for.
        out: Folder for logs and report.
    """

    def __init__(self, network: Network, given: argparse.Namespace, out: Path) -> None:
        self._network, self._out = network, out
        self._tasks, self._rate = given.tasks, given.rate
        self._policy, self._in_time_frac = given.policy, given.in_time
        self._processes: list[subprocess.Popen[bytes]] = []
        self._providers: dict[str, subprocess.Popen[bytes]] = {}
        self._marks: list[dict[str, object]] = []
        self.faults = tuple(given.faults.split(","))
        self.back_s: dict[str, float] = {}
        self.capped = (0, 0)
        self.cap: cap.CapSet | None = None
        self.gateway_cpu_s = 0.0
        self._fleet: dict[str, int] = {}

    def log_of(self, name: str) -> Path:
        """A provider's own log."""
        return self._out / f"{name}.log"

    async def run(self) -> bool:
        """Drill and judge."""
        try:
            return await self._drilled()
        finally:
            for one in self._processes:
                one.kill()
                one.wait()

    async def _drilled(self) -> bool:
        self._fleet = planned(self._rate * STEPS, self._out)
        say(f"planned to survive the loss of any one provider: {self._fleet} servers")
        for name, servers in self._fleet.items():
            self._start_provider(name, servers)
        keys = [self._key("drill", 100.0), self._key("capped", CAPPED_USD)]
        self._start_gateway()
        await _ready()
        async with Clients(_URL, keys[0], DEADLINE_S, TASK_USD) as clients:
            capped = asyncio.create_task(self._spend(keys[1]))
            await self._load("calm", self._tasks, clients)
            struck = self._in_use()
            for number, fault in enumerate(self.faults):
                await self._under(fault, struck[number % len(struck)], clients)
            await self._capped(clients)
            await clients.all_told()
            capped.cancel()
            await self._all_ended()
            self._stop_gateway()
            return self._judged(clients)

    # ------------------------------------------------------------ processes

    def _start_provider(self, name: str, servers: int) -> None:
        ports = ",".join(str(8001 + number) for number in range(servers))
        program = [sys.executable, str(HERE / "provider.py"), name, self._network.address(name)]
        command = self._network.command(name, *program, ports, str(self.log_of(name)))
        made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self._processes.append(made)
        self._providers[name] = made
        self._heard(name)

    def _tell(self, name: str, mood: str) -> None:
        told = self._providers[name].stdin
        assert told is not None  # noqa: S101 - an invariant: it is a pipe
        told.write(f"{mood}\n".encode())
        told.flush()
        self._heard(name)

    def _heard(self, name: str) -> None:
        said = self._providers[name].stdout
        if said is None or not said.readline():
            raise RuntimeError(f"provider {name} has ended")

    def _key(self, name: str, usd: float) -> str:
        told = steelyard(
            self._out, "keys", "create", name, "--budget", str(usd), "--store", "events.db"
        )
        return told.strip()

    def _start_gateway(self) -> None:
        text = _GATEWAY.format(idle_s=_IDLE_S, policy=self._policy)
        for name, servers in self._fleet.items():
            host = self._network.address(name)
            urls = json.dumps([f"http://{host}:{8001 + n}/v1" for n in range(servers)])
            text += _POOL.format(name=name, urls=urls, price=_PRICES[name], cap=_CAP)
        (self._out / "steelyard.toml").write_text(text, encoding="ascii")
        with (self._out / "gateway.log").open("wb") as log:
            command = [sys.executable, "-m", "steelyard", "up", "--config", "steelyard.toml"]
            made = subprocess.Popen(command, cwd=self._out, stdout=log, stderr=log)  # noqa: S603
        self._processes.append(made)

    def _stop_gateway(self) -> None:
        gateway = self._processes[-1]
        before_s = _children_cpu_s()
        gateway.terminate()
        gateway.wait(60.0)
        self.gateway_cpu_s = _children_cpu_s() - before_s

    # ----------------------------------------------------------------- load

    async def _load(self, name: str, tasks: int, clients: Clients) -> None:
        begun_s = time.monotonic()
        for number in range(tasks):
            await asyncio.sleep(max(0.0, begun_s + number / self._rate - time.monotonic()))
            clients.start(f"{name}-{number}")

    async def _under(self, fault: str, name: str, clients: Clients) -> None:
        """All tasks of a fault arrive while it lasts; then more, until the provider serves."""
        strike, end = self._switches(fault, name)
        strike()
        self._mark(f"{name}: {fault}", name)
        say(f"{fault} at {name}")
        await self._load(fault, self._tasks, clients)
        end()
        self._mark(f"{name} works", name)
        ended_s, served = time.monotonic(), self._served(name)
        number = 0
        while self._served(name) == served:
            if time.monotonic() > ended_s + _BACK_S:
                raise RuntimeError(f"{name} serves nothing {_BACK_S:g} s after the fault `{fault}`")
            clients.start(f"{fault}{AFTER}-{number}")
            number += 1
            await asyncio.sleep(1.0 / self._rate)
        self.back_s[fault] = time.monotonic() - ended_s
        await self._load(f"{fault}{AFTER}.calm", int(2.0 * self._rate), clients)

    async def _capped(self, clients: Clients) -> None:
        """The provider that is used most gets a cap, which is reached under the load."""
        # What runs would spend of the room while the gateway reads of it.
        await clients.all_told()
        provider, usd = cap.chosen(self._events(), self._tasks * STEPS)
        with (self._out / "steelyard.toml").open("a", encoding="ascii") as config:
            config.write(f"[limits.providers.{provider}]\nusd_per_day = {usd!r}\n")
        await asyncio.to_thread(steelyard, self._out, "reload", "--config", "steelyard.toml")
        self.cap = cap.CapSet(provider, usd, cap.set_since(self._events(), provider))
        self._mark(f"cap of {provider}", provider)
        say(f"cap of {usd:.6f} USD per day at {provider}")
        await self._load(cap.PHASE, self._tasks, clients)

    def _switches(self, fault: str, name: str) -> tuple[Callable[[], None], Callable[[], None]]:
        if fault == "cut":
            return lambda: self._network.cut(name), lambda: self._network.join(name)
        if fault == "slow":
            return lambda: self._network.slow(name), lambda: self._network.hasten(name)
        return lambda: self._tell(name, fault), lambda: self._tell(name, "ok")

    def _served(self, name: str) -> int:
        return self.log_of(name).read_text(encoding="ascii").count('"answered"')

    def _in_use(self) -> list[str]:
        """Providers that the policy uses; one that has no steps shows nothing when it is lost."""
        served = {name: self._served(name) for name in PROVIDERS}
        return [name for name in PROVIDERS if served[name] > 0.1 * sum(served.values())]

    def _mark(self, label: str, pool: str) -> None:
        self._marks.append({"t_s": time.time(), "label": label, "pool": pool})
        text = json.dumps(self._marks, indent=1)
        (self._out / "marks.json").write_text(text, encoding="ascii")

    async def _spend(self, key: str) -> None:
        """Ask with a key whose budget ends on the way, on and on."""
        async with Clients(_URL, key, DEADLINE_S, TASK_USD) as client:
            number = 0
            while True:
                client.start(f"capped-{number}")
                number += 1
                await asyncio.sleep(0.5)
                self.capped = (len(client.answers), len(client.given_up))

    async def _all_ended(self) -> None:
        gives_up_s = time.monotonic() + 4.0 * _IDLE_S
        while left := open_tasks(self._events()):
            if time.monotonic() > gives_up_s:
                raise RuntimeError(f"{len(left)} tasks do not end, among them {min(left)}")
            await asyncio.sleep(1.0)

    def _events(self):  # noqa: ANN202
        return read_events(self._out / "events.db")

    # -------------------------------------------------------------- verdict

    def _judged(self, clients: Clients) -> bool:
        books = Books(self._events(), [self.log_of(name) for name in PROVIDERS])
        ledger = Ledger.of(self._events())
        say(f"slow: {self._network.slowed_by or 'not drilled'}; statuses {dict(clients.statuses)}")
        is_good = True
        for fault in ("calm", *self.faults, cap.PHASE):
            found = verdict(books, clients.answers, clients.given_up, fault)
            tasks, late, over, longest_s = promises(ledger.tasks, fault)
            in_time = late <= tasks * (1.0 - self._in_time_frac)
            is_good = is_good and found.is_good and not over and in_time
            back = f", back after {self.back_s[fault]:.1f} s" if fault in self.back_s else ""
            say(
                f"{fault:6} {tasks} tasks, {found.steps} steps: lost {found.lost}, doubled"
                f" {found.doubled}, wrong {found.wrong + found.unknown}, unaccounted"
                f" {found.unaccounted}, given up {found.given_up}; done again {found.again}; late"
                f" {late}, longest {longest_s:.1f} s, over budget {over}{back}"
            )
        steps = len(clients.answers) + self.capped[0]
        log_bytes = (self._out / "events.db").stat().st_size
        say(
            f"gateway: {1e3 * self.gateway_cpu_s / steps:.2f} ms of CPU and {log_bytes / steps:.0f}"
            " bytes of log per step"
        )
        return self._caps_hold() and is_good

    def _caps_hold(self) -> bool:
        """Has the small key spent no more than its budget, and was it refused in the end?"""
        told = steelyard(self._out, "keys", "show", "capped", "--store", "events.db", "--json")
        spent_usd: float = json.loads(told)["spent_usd"]
        say(
            f"key with {CAPPED_USD:g} USD: spent {spent_usd:.6f} on {self.capped[0]} steps, then"
            f" {self.capped[1]} refused"
        )
        return spent_usd <= CAPPED_USD and self.capped[1] > 0 and self._cap_holds()

    def _cap_holds(self) -> bool:
        """Has the capped provider cost no more than its cap, and did steps go elsewhere?"""
        if self.cap is None:
            return False
        found = cap.judged(self._events(), self.cap)
        say(
            f"{self.cap.provider} with {self.cap.usd_per_day:.6f} USD per day: spent"
            f" {found.spent_usd:.6f}; {found.placed} steps more, then {found.turned} went elsewhere"
        )
        # Steps under way when it is reached may cost more than was predicted of them.
        return found.spent_usd <= 1.01 * self.cap.usd_per_day and found.turned > 0


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _ready() -> None:
    gives_up_s = time.monotonic() + 60.0
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{_URL}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if time.monotonic() > gives_up_s:
                raise RuntimeError("the gateway does not serve; see gateway.log")
            await asyncio.sleep(0.1)


def options() -> argparse.Namespace:
    """What is asked for?"""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000, help="under each fault")
    parser.add_argument("--rate", type=float, default=40.0, help="tasks per second")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--policy", default="cheapest_feasible")
    parser.add_argument("--in-time", type=float, default=0.99, help="share that must be in time")
    parser.add_argument("--out", type=Path, default=Path("drill"))
    return parser.parse_args()


def main() -> None:
    """Drill, report and tell."""
    given = options()
    reason = why_not()
    if reason:
        print(f"drill skipped: {reason}")
        sys.exit(SKIPPED)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("*.log"), *out.glob("events.db*")):
        old.unlink()
    say(f"{given.tasks} tasks of {STEPS} steps under each fault, {given.rate:g} per second")
    say(f"deadline {DEADLINE_S:g} s, policy {given.policy}; {os.cpu_count()} cores")
    with Network(PROVIDERS) as network:
        network.enter()
        is_good = uvloop.run(Drill(network, given, out).run())
    log, page = str(out / "events.db"), str(out / "report.html")
    steelyard(out, "report", log, "--marks", str(out / "marks.json"), "-o", page)
    print(f"report: {page}")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()

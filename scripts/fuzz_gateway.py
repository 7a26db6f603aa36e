"""Send hostile HTTP to a gateway until the time is over; ends at the first answer that is wrong.

Run as `python scripts/fuzz_gateway.py [--seconds S] [--seed N]`, or `make fuzz`. The test suite
sends a few hundred of the same requests (tests/gateway/test_hostile.py).
"""

import argparse
import logging
import resource
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.gateway.conftest import start_gateway
from tests.gateway.hostile import BODY
from tests.gateway.test_hostile import LIMITS, fuzz

from steelyard.gateway.settings import GatewaySettings

_ROUND = 1000


class _Traceback(logging.Handler):
    """Ends the run when something is logged with a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            raise SystemExit(f"traceback in the log: {record.getMessage()} {record.exc_info[1]!r}")


async def _main(seconds: float, seed: int) -> None:
    logging.getLogger().addHandler(_Traceback())
    ends_s = time.monotonic() + seconds
    async with start_gateway(settings=GatewaySettings(limits=LIMITS)) as rig:
        while time.monotonic() < ends_s:
            await fuzz(rig, seed, _ROUND)
            async with rig.http.post("/v1/chat/completions", data=BODY) as response:
                if response.status != 200:
                    raise SystemExit(f"seed {seed}: a good request got {response.status}")
            rig.events.clear()
            rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"seed {seed}: {_ROUND} requests, largest memory {rss_mb:.0f} MB", flush=True)
            seed += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    uvloop.run(_main(asked.seconds, asked.seed))

"""How caps were kept, by the books of a run."""

import msgspec
from tests.ledger.test_health import attempt, pool

from steelyard.domain.events import Event
from steelyard.domain.pool import SpendCap
from steelyard.ledger.caps import caps_kept
from steelyard.ledger.ledger import Ledger


def test_the_fullest_hour_and_day_of_a_capped_provider_are_told() -> None:
    cap = SpendCap(usd_per_hour=2.0, usd_per_day=3.0)
    log: list[Event] = [
        msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, spend_cap=cap))
        for one in (pool("p"), pool("q"))
    ]
    for number, t_s in enumerate((10.0, 20.0, 4000.0)):
        log += attempt(number, "p", t_s)
    ledger = Ledger.of(log)
    each_usd = ledger.attempts[0].cost_usd
    hour, day = (one for one in caps_kept(ledger) if one.provider == ledger.pools["p"].provider)
    assert (hour.span, hour.cap_usd, hour.most_usd) == ("hour", 2.0, 2 * each_usd)
    assert (day.span, day.cap_usd, day.most_usd) == ("day", 3.0, 3 * each_usd)

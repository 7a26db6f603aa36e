import time

import pytest

from steelyard.runtime.clock import WallClock


def test_the_clock_tells_seconds_since_1970_and_never_runs_backwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_s = time.time()
    clock = WallClock()
    read = [clock.now_s() for _ in range(100)]
    assert abs(read[0] - before_s) < 60.0
    assert read == sorted(read)
    # Somebody sets the machine's clock back by a day.
    monkeypatch.setattr("time.time", lambda: before_s - 86_400.0)
    assert clock.now_s() >= read[-1]

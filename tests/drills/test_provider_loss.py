"""The drill of lost providers, short: real namespaces, real processes, every fault once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from drill_providers.network import why_not
from drill_providers.verdict import Books, verdict

from steelyard.domain.events import AttemptFinished, Usage

ROOT = Path(__file__).parents[2]


def finished(step_id: int, text: str) -> AttemptFinished:
    return AttemptFinished(
        t_s=1.0, task_id="cut-1", step_id=step_id, attempt=0, outcome="ok", usage=Usage(),
        cost_usd=0.0, result={"content": f"{text} word"},
    )  # fmt: skip


def test_the_verdict_finds_what_is_lost_doubled_wrong_and_unaccounted_for(tmp_path: Path) -> None:
    log = tmp_path / "ash.log"
    requests = [("cut-1/0", 1), ("cut-1/0", 2), ("cut-1/1", 3)]
    lines = [json.dumps({"key": key, "number": number}) for key, number in requests]
    log.write_text("\n".join(lines), encoding="ascii")
    books = Books([finished(0, "ash-1"), finished(0, "ash-2"), finished(1, "ash-3")], [log])
    answers = {"cut-1/0": "ash-2", "cut-1/1": "ash-9", "cut-1/2": "ash-3"}
    found = verdict(books, answers, ["cut.after-1/0", "calm-1/0"], "cut")
    assert (found.steps, found.lost, found.doubled, found.wrong) == (3, 1, 1, 2)
    assert (found.unknown, found.again, found.given_up) == (1, 1, 1)
    # None of the three requests has a placement in the log.
    assert found.unaccounted == 3
    assert not found.is_good


def test_no_step_is_lost_or_doubled_when_a_provider_is_cut_off_slow_or_wrong(
    tmp_path: Path,
) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, str(ROOT / "scripts" / "drill_providers")]
    # So that every provider has steps when its turn comes.
    policy = ["--policy", "join_shortest_of_two"]
    asked = ["--tasks", "40", "--rate", "20", "--in-time", "0", "--out", str(tmp_path), *policy]
    done = subprocess.run(  # noqa: S603
        [*command, *asked], check=False, capture_output=True, text=True, timeout=240.0
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for fault in ("cut", "slow", "error", "half", "cap"):
        line = next(one for one in done.stdout.splitlines() if one.startswith(f"{fault:6} "))
        assert "lost 0, doubled 0, wrong 0, unaccounted 0, given up 0" in line
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Providers over time" in page
    assert "half" in page

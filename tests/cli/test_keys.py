"""`steelyard keys`: a key is shown once, found by id or name, and never kept."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from steelyard.cli import keys
from steelyard.cli.keys import NewKey, run_create, run_list, run_revoke, run_rotate, run_show
from steelyard.errors import ConfigError, StoreError
from steelyard.store.open_store import open_store


@pytest.fixture(autouse=True)
def no_gateway_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So nobody has to be waited for."""
    monkeypatch.setattr(keys, "SEEN_WITHIN_S", 0.0)


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "s.db")


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_key_is_printed_once_and_only_its_hash_is_kept(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = NewKey(
        name="coder", agent="coder", budget_usd=2.0, expires="30d", models=("m",), pools=("p",)
    )
    run_create(where, wanted, as_json=False)
    token = capsys.readouterr().out.strip()
    with open_store(where) as store:
        (key,) = store.keys.changed_after(0).result()
    assert key.digest == hashlib.sha256(token.encode()).digest()
    assert token.startswith(f"sk-sy-{key.key_id}-")
    assert len(token.split("-", 3)[3]) == 43
    assert key.terms.expires_s is not None
    assert key.terms.expires_s - time.time() > 29 * 86_400
    for as_json in (True, False):
        run_list(where, as_json=as_json)
        told = capsys.readouterr().out
        run_show(where, "coder", as_json=as_json)
        for one in (told, capsys.readouterr().out):
            assert key.key_id in one
            assert token.split("-", 3)[3] not in one
            assert key.digest.hex() not in one
    for path in Path(where).parent.iterdir():
        assert token.encode() not in path.read_bytes()


def test_rotating_keeps_id_and_terms_and_revoking_ends_both_secrets(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_create(where, NewKey(name="a", team="t", tokens_per_min=5.0), as_json=True)
    first = said(capsys)
    run_rotate(where, "a", "1h", as_json=True)
    second = said(capsys)
    assert first["key_id"] == second["key_id"]
    assert first["key"] != second["key"]
    assert second["tokens_per_min"] == 5.0
    assert second["old_until_s"] > time.time() + 3500.0
    run_revoke(where, first["key_id"], as_json=True)
    assert said(capsys)["state"] == "revoked"
    run_list(where, as_json=True)
    assert [one["state"] for one in said(capsys)] == ["revoked"]
    with pytest.raises(ConfigError, match="revoked"):
        run_rotate(where, "a", "0s", as_json=True)
    run_create(where, NewKey(name="a"), as_json=True)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (NewKey(name=""), "name"),
        (NewKey(name="a\n"), "name"),
        (NewKey(name="a", budget_usd=0.0), "--budget is 0 USD"),
        (NewKey(name="a", requests_per_s=float("nan")), "--requests-per-s is nan"),
        (NewKey(name="a", task_id="a b"), "--task"),
        (NewKey(name="a", deadline="5m"), "--task"),
        (NewKey(name="a", expires="soon"), "duration"),
        (NewKey(name="a", expires="2027-01-01"), "time zone"),
    ],
)
def test_terms_that_make_no_sense_are_refused(where: str, wanted: NewKey, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_create(where, wanted, as_json=False)


def test_a_name_is_taken_once_and_what_is_not_there_is_said_without_repeating_a_key(
    where: str,
) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        run_list(where, as_json=False)
    run_create(where, NewKey(name="a"), as_json=False)
    with pytest.raises(ConfigError, match="already"):
        run_create(where, NewKey(name="a"), as_json=False)
    with pytest.raises(ConfigError) as caught:
        run_show(where, "sk-sy-0123456789abcdef-secret", as_json=False)
    assert "secret" not in str(caught.value)

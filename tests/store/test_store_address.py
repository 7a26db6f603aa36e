"""What is said when a store's address is wrong: one line, a cure, and no password."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.store.postgres_server import PostgresServer

from steelyard.cli.store_choice import opened_store
from steelyard.config.settings import StoreSection
from steelyard.domain.events import TaskSubmitted
from steelyard.errors import ConfigError, StoreError
from steelyard.store.open_store import open_store
from steelyard.store.tasks import Submission


@pytest.fixture
def guarded(postgres: PostgresServer) -> str:
    """URL of a database whose user `guarded` needs the password `s3cret`."""
    return postgres.new_database_of("guarded", "s3cret")


def _refusal(url: str, password: str = "") -> str:
    with pytest.raises((StoreError, ConfigError)) as caught:
        open_store(url, password)
    told = str(caught.value)
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush@127.0.0.1:1/none",
        "postgresql://me@127.0.0.1:1/none?password=hush",
        "postgresql://me:hu/hush@127.0.0.1:1/none",
        "postgresql://me:h@hush@127.0.0.1:1/none",
        "postgresql://me:hush@127.0.0.1:1/none?nonsense=1",
    ],
)
def test_no_message_shows_a_password_however_the_url_is_cut(
    postgres: PostgresServer, url: str
) -> None:
    assert "hush" not in _refusal(url)


def test_a_server_that_does_not_answer_is_named(postgres: PostgresServer) -> None:
    told = _refusal("postgresql://me@127.0.0.1:1/none")
    assert "postgresql://127.0.0.1/none is away" in told
    assert told.endswith("start it, or correct the URL")


def test_a_wrong_password_is_called_so_and_not_shown(guarded: str) -> None:
    for password in ("", "wrong-one"):
        told = _refusal(guarded, password)
        assert "correct the user in the URL, and the password in PGPASSWORD" in told
        assert "wrong-one" not in told


def test_a_database_that_does_not_exist_is_named_with_its_cure(postgres: PostgresServer) -> None:
    told = _refusal(postgres.url.replace("@/postgres?", "@/nowhere?"))
    assert '"nowhere" does not exist' in told
    assert "createdb" in told


def test_the_password_comes_from_the_variable_that_the_configuration_names(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = StoreSection(url=guarded, password_env="DB_PASSWORD")  # noqa: S106 - a name
    with pytest.raises(ConfigError, match=r"store\.password_env names .* DB_PASSWORD"):
        opened_store(section)
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    with opened_store(section) as store:
        event = TaskSubmitted(t_s=1.0, task_id="t", agent="a")
        store.submit(Submission(event=event)).result()
        assert [row.task_id for row in store.tasks().result()] == ["t"]
        assert "s3cret" not in store.where


def test_an_option_goes_before_the_configuration(tmp_path: Path) -> None:
    section = StoreSection(path=tmp_path / "one.db", url="postgresql://nobody@127.0.0.1:1/none")
    with opened_store(section, str(tmp_path / "two.db")) as store:
        assert store.where == str(tmp_path / "two.db")
    with opened_store(StoreSection(path=tmp_path / "one.db")) as store:
        assert store.where == str(tmp_path / "one.db")


def test_another_kind_of_url_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = _refusal("mysql://me:hush@host/db")
    assert "mysql:// URL" in told
    assert "hush" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_missing_driver_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None; sys.argv = ['steelyard', 'tasks', 'list',"
        " '--store', 'postgresql://me:hush@127.0.0.1:1/none'];"
        "from steelyard.cli.app import main; main()"
    )
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "pip install 'steelyard[postgres]'" in ran.stderr
    assert "hush" not in ran.stderr

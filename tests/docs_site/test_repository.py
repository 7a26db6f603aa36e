from pathlib import Path, PurePosixPath

import pytest
from docs_site.repository import linked, rewritten, shown_files, site_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in (
        ("README.md", "[scope](SCOPE.md#no) and [page](docs/keys.md)\n"),
        ("SCOPE.md", "nothing\n"),
        ("docs/keys.md", "[read](../README.md), [web](https://x.example/a), [here](#there)\n"),
        ("docs/adr/0001.md", "[code](../../examples/a.py)\n"),
        ("examples/a.py", "print(1)\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_files_of_docs_stay_where_they_are_and_others_become_pages(root: Path) -> None:
    assert site_path(root, PurePosixPath("docs/keys.md")) == PurePosixPath("keys.md")
    assert site_path(root, PurePosixPath("SCOPE.md")) == PurePosixPath("repository/SCOPE.md")
    shown = site_path(root, PurePosixPath("examples/a.py"))
    assert shown == PurePosixPath("repository/examples/a.py.md")
    assert site_path(root, PurePosixPath("examples")) is None


def test_links_that_leave_docs_point_to_pages_and_others_stay(root: Path) -> None:
    source = PurePosixPath("docs/keys.md")
    text = (root / source).read_text(encoding="utf-8")
    told = rewritten(text, root, source, PurePosixPath("keys.md"))
    assert told == "[read](repository/README.md), [web](https://x.example/a), [here](#there)\n"


def test_a_link_in_a_block_of_code_stays(root: Path) -> None:
    text = "```\n[read](../README.md)\n```\n"
    source = PurePosixPath("docs/keys.md")
    assert rewritten(text, root, source, PurePosixPath("keys.md")) == text
    assert linked(text, root, source) == set()


def test_what_a_shown_file_links_to_is_shown_as_well(root: Path) -> None:
    first = [PurePosixPath("docs/keys.md"), PurePosixPath("docs/adr/0001.md")]
    shown = shown_files(root, first)
    assert {str(path) for path in shown} == {
        "repository/README.md",
        "repository/SCOPE.md",
        "repository/examples/a.py.md",
    }
    readme = shown[PurePosixPath("repository/README.md")]
    assert readme == "[scope](SCOPE.md#no) and [page](../keys.md)\n"
    assert "print(1)" in shown[PurePosixPath("repository/examples/a.py.md")]

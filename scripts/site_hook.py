"""What MkDocs calls while it builds the site: written pages, links to the repository, pictures.

A page under docs/ that the navigation of mkdocs.yml does not name is put at the end of its part,
so that adding a file is enough.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs_site import decisions, pages, repository

_ROOT = Path(__file__).parents[1]
# Part of the navigation -> pages that belong there, as globs below docs/.
_PARTS = {
    "How-to guides": ("*.md", "how-to/*.md"),
    "Explanation": ("explanation/*.md",),
    "Decisions": ("adr/[0-9]*.md",),
}
_ALWAYS = tuple(PurePosixPath(name) for name in ("SCOPE.md", "CONTRIBUTING.md", "CHANGELOG.md"))
_PICTURE = re.compile(r'<img alt="([^"]*)" src="[^"]*images/(drawn/[\w-]+\.svg)"[^>]*>')
_EMPTY_HEAD = re.compile(r"<th([^>]*)></th>")
_SEARCH = 'data-md-component="search" role="dialog"'
_MENU_PART = re.compile(
    r'(<nav class="md-nav" data-md-level="\d+") aria-labelledby="__nav_([\d_]+)_label"'
    r'(.*?<label class="md-nav__title" for="__nav_\2">\s*<span[^>]*></span>\s*([^<]+?)\s*<)',
    re.DOTALL,
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name at the end of their part."""
    named = {str(page) for part in config.nav or [] for page in _leaves(part)}
    docs = Path(config.docs_dir)
    for part in config.nav or []:
        for title, entries in part.items():
            for glob in _PARTS.get(title, ()):
                found = sorted(file.relative_to(docs).as_posix() for file in docs.glob(glob))
                entries += [one for one in found if one not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from the code, and those of files of the repository."""
    written = {path: write() for path, write in pages.GENERATED.items()}
    written["adr/index.md"] = decisions.page(_ROOT / "docs" / "adr")
    docs = (PurePosixPath("docs", file.src_uri) for file in files.documentation_pages())
    shown = repository.shown_files(_ROOT, [*docs, *_ALWAYS])
    written |= {str(path): text for path, text in shown.items()}
    for path, text in written.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ point to the pages that show their files."""
    del config, files
    path = PurePosixPath(page.file.src_uri)
    if page.file.generated_by is not None:
        return markdown
    return repository.rewritten(markdown, _ROOT, PurePosixPath("docs") / path, path)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put drawn pictures into the page itself: their ink is then the page's text colour."""
    del page, files

    def inline(found: re.Match[str]) -> str:
        told, name = found.groups()
        svg = Path(config.docs_dir, "images", name).read_text(encoding="utf-8")
        return svg.replace("<svg ", f'<svg role="img" aria-label="{told}" class="drawn" ', 1)

    # A heading without words is none; tables of facts begin with one.
    return _EMPTY_HEAD.sub(r"<td\1></td>", _PICTURE.sub(inline, html))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Tell screen readers what the theme does not: the names of its menu's parts and search."""
    del page, config
    output = _MENU_PART.sub(r'\1 aria-label="\4"\3', output)
    return output.replace(_SEARCH, f'{_SEARCH} aria-label="Search"')


def _leaves(entry: object) -> list[object]:
    if isinstance(entry, dict):
        return [leaf for value in entry.values() for leaf in _leaves(value)]
    if isinstance(entry, list):
        return [leaf for value in entry for leaf in _leaves(value)]
    return [entry]

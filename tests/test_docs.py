"""Every page is in the site's navigation, and every link between pages leads somewhere; make docs checks them too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = re.findall(r": (\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation_once() -> None:
    there = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")
    }
    assert {page for page in PAGES if page.startswith("docs/")} == there
    assert len({*PAGES}) == len(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for file, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / file if file else page
        assert target.exists(), f"{name} links to {file}"
        if anchor:
            assert anchor in anchors(target), f"{name} links to {file}#{anchor}"

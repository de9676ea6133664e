"""The documentation is made from the code, holds together, and builds without a warning."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["recipes.md", "commands.md"])
def test_the_reference_equals_the_code(name):
    page = _module(DOCS / "tools" / "reference.py").PAGES[name]()
    assert (DOCS / "reference" / name).read_text() == page, "run make reference"


def _anchors(page):
    """Return the anchors of a page's headings, as GitHub and MkDocs name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *DOCS.rglob("*.md")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_anchor_leads_to_a_heading(page):
    for place, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if not place.startswith("http"):
            target = (page.parent / place).resolve() if place else page
            assert anchor in _anchors(target), f"{place}#{anchor}"


def test_every_page_is_in_the_navigation():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def pages(item):
        if isinstance(item, str):
            return [item]
        inner = item.values() if isinstance(item, dict) else item
        return [page for one in inner for page in pages(one)]

    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert {page for page in written if not page.startswith("decisions/")} == set(
        pages(config["nav"])
    )


def test_the_readme_fits():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text()):
            if not link.startswith(("http", "data:", "mailto:")) and page.name != "404.html":
                assert (page.parent / link).resolve().exists(), f"{page.relative_to(site)}: {link}"

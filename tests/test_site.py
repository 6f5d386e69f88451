"""The documentation site: built strictly and without the network, and nothing of it comes from elsewhere while it is read."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import threepc

ROOT = Path(__file__).parents[1]

# As `mkdocs build --strict`, in a process that can reach nobody.
BUILD = """
import socket
import sys

def refuse(*_):
    raise OSError("the site is built without the network")

socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli

cli(["build", "--strict", "--quiet", "--site-dir", sys.argv[1]])
"""
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the site."""
    needed = ("mkdocs", "material", "mkdocstrings_handlers")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_there(site):
    for document in (ROOT / "docs").rglob("*.md"):
        name = document.relative_to(ROOT / "docs").with_suffix("")
        assert (site / ("" if name.name == "index" else name) / "index.html").is_file(), document
    assert not (site / "hooks.py").exists()


def test_nothing_is_fetched_while_it_is_read(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        own = [tag for tag in FETCHED.findall(text) if 'rel="canonical"' not in tag]
        assert not own, page
        assert 'class="mermaid"' not in text, "the theme would fetch a script to draw it"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", sheet.read_text()), sheet


def test_what_is_public_is_described(site):
    page = (site / "api/index.html").read_text()
    for name in ("threepc.api.local", "threepc.api.Client.predict", "threepc.api.SecureModel.report", "threepc.images.card.ModelCard"):
        assert f'id="{name}"' in page


def test_a_tag_that_fetches_is_seen():
    fetching = '<script src="https://a/b.js"></script><link rel="stylesheet" href="//a/b.css"><img src="a.png"><a href="https://a">b</a>'
    assert len(FETCHED.findall(fetching)) == 2


def test_the_navigation_has_every_page():
    """Also where the site cannot be built here."""
    pages = re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(pages) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))


def test_the_page_of_the_api_names_all_that_is_public():
    described = re.findall(r"^::: threepc\.[\w.]*?(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert set(threepc.__all__) - {"__version__"} <= set(described)

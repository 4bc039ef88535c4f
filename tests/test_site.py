"""The site of the docs is built without a warning, is whole, and loads nothing from other hosts."""

import inspect
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from regcascade.cascades import CASCADES
from regcascade.data import DATA_SETS, options_of
from regcascade.data.augmentation import AUGMENTATIONS
from regcascade.evaluation.baselines import METHODS
from regcascade.losses import Objective
from regcascade.losses.similarity import SIMILARITIES
from regcascade.networks import NETS

ROOT = Path(__file__).parents[1]
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("use", "href")}
pytestmark = pytest.mark.long


class Page(HTMLParser):
    """The anchors, links and loaded resources of an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        self.links += [given[key] for key in ("href", "src") if key in given]
        self.loaded += [given[key] for name, key in LOADED if name == tag and key in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site, pages):
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            assert target not in pages or unquote(parts.fragment) in pages[target].anchors, (path, link)


def test_no_page_loads_anything_from_another_host(site, pages):
    assert not {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc}
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert "url(http" not in text and "url(//" not in text and "@import" not in text, path


def test_the_home_page_is_the_readme_and_search_finds_docs_and_docstrings(site):
    assert "<h1" in (site / "index.html").read_text(encoding="utf-8")
    found = {entry["location"] for entry in json.loads((site / "search" / "search_index.json").read_text())["docs"]}
    assert {"", "docs/register/", "CHANGELOG/", "reference/options/"} <= found
    assert "reference/regcascade.geometry.warp/#regcascade.geometry.warp.compose" in found
    assert "reference/regcascade/#regcascade.register" in found


def test_the_options_page_lists_every_option_of_every_registered_class(site):
    page = (site / "reference" / "options" / "index.html").read_text(encoding="utf-8")
    groups = {"model": NETS, "cascade": CASCADES, "method": METHODS}
    expected = {f"loss.{key}" for key in inspect.signature(Objective).parameters}
    expected |= {f"data.{key}" for name in DATA_SETS.names() for key in inspect.signature(options_of(name)).parameters}
    for group, registry in groups.items():
        classes = [registry.get(name) for name in registry.names()]
        built_in = [cls for cls in classes if cls.__module__.startswith("regcascade.")]
        parameters = {key for cls in built_in for key in inspect.signature(cls).parameters}
        expected |= {f"{group}.{key}" for key in parameters - {*registry.reserved, "args", "kwargs"}}
    for registry in (SIMILARITIES, AUGMENTATIONS):
        expected |= {key for name in registry.names() for key in inspect.signature(registry.get(name)).parameters}
    missing = {key for key in expected - {"args", "kwargs"} if f"<code>{key}</code>" not in page}
    assert not missing

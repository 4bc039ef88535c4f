"""Lay the site out as the repository is, so that the links of its Markdown files work on both without a change.

README.md is the home page. Pages of docs/, and all that a page links to, keep their paths: a Markdown file becomes a
page, any other file is published as it is. The navigation of mkdocs.yml says which modules have a page of reference:
`reference/regcascade.geometry.warp.md` is written here from the docstrings of that module.
"""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)")
SOURCES = {"", ".py", ".yaml", ".yml", ".toml", ".cff", ".sh"}  # a browser would save these, not show them


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Put every file at its place in the repository, and add those that pages link to and the pages of reference."""
    root = Path(config.config_file_path).parent
    own = [file for file in files if file.src_dir == config.docs_dir]
    for file in own:
        files.remove(file)
        files.append(published(f"{Path(config.docs_dir).name}/{file.src_uri}", root, config))
    wanted = list(pages_of(config.nav))
    for path in wanted:
        if path.startswith("reference/") and files.get_file_from_path(path) is None and Path(path).stem != "options":
            files.append(File.generated(config, path, content=reference(path, root)))
    wanted += [file.src_uri for file in files if file.src_uri.endswith(".md") and file.generated_by is None]
    seen: set[str] = set()
    while wanted:
        path = wanted.pop()
        if path in seen or not (root / path).is_file():
            continue
        seen.add(path)
        if files.get_file_from_path(path) is None:
            files.append(published(path, root, config))
        if path.endswith(".md"):
            text = (root / path).read_text(encoding="utf-8")
            wanted += [os.path.normpath(Path(path).parent / target) for target in LINK.findall(text)]
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Leave the navigation out of the home page, whose tab has no other."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    return markdown


def published(path: str, root: Path, config: MkDocsConfig) -> File:
    """Publish a file of the repository; a source file ends in .txt on the site, so that a browser shows it."""
    shown = f"{path}.txt" if Path(path).suffix in SOURCES else None
    file = File(path, str(root), config.site_dir, config.use_directory_urls, dest_uri=shown)
    if not path.startswith(f"{Path(config.docs_dir).name}/"):
        file.inclusion = InclusionLevel.NOT_IN_NAV  # only linked to
    return file


def pages_of(nav: object) -> Iterator[str]:
    """List the pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_of(part)


def reference(path: str, root: Path) -> str:
    """Write the page of a module; of a package that exports nothing itself, its modules one after another."""
    name = Path(path).stem
    source = root / name.replace(".", "/")
    modules = [name]
    if source.is_dir() and "__all__" not in (source / "__init__.py").read_text(encoding="utf-8"):
        modules = [f"{name}.{module.stem}" for module in sorted(source.glob("[!_]*.py"))]
    if modules == [name]:
        return f"# {name}\n\n::: {name}\n"
    about = ast.get_docstring(ast.parse((source / "__init__.py").read_text(encoding="utf-8")))
    shown = "    options:\n      show_root_heading: true\n      show_root_full_path: true\n      heading_level: 2\n"
    return f"# {name}\n\n{about}\n\n" + "\n".join(f"::: {module}\n{shown}" for module in modules)

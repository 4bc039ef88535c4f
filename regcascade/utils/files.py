"""Write files whole or not at all, and describe the code that wrote them."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

MOST_VALUES, DEEPEST = 100_000, 50  # of a YAML file: values, with its aliases written out, and levels


class NotWritten(ValueError):
    """A file could not be written, for example because the disk is full."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a system error of the block into NotWritten, which names the file. The block must keep the old content."""
    try:
        yield
    except OSError as error:
        kept = "What was in it before is kept. " if path.is_file() and path.stat().st_size else ""
        raise NotWritten(f"{path} could not be written ({error.strerror or error}). {kept}Make room.") from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds, remove it otherwise."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def parse_json(text: str) -> Any:
    """Parse JSON; raise ValueError for what is none, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; NaN raises ValueError."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's where there is one
    """Reads plain values, and 1e-4 as a number, as Hydra does."""


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values; raise ValueError with the reason if it is none, nests deeply, or aliases multiply."""
    sizes: dict[str | None, float] = {}  # values of what each anchor names, aliases written out
    within: list[tuple[str | None, float]] = [(None, 0.0)]  # anchor and values so far, of what is open
    try:
        for event in yaml.parse(text, _Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                within.append((event.anchor, 0.0))
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                ended = within.pop() if isinstance(event, yaml.CollectionEndEvent) else (event.anchor, 0.0)
                is_alias = isinstance(event, yaml.AliasEvent)
                sizes[ended[0]] = size = sizes.get(event.anchor, math.inf) if is_alias else 1.0 + ended[1]
                within[-1] = (within[-1][0], within[-1][1] + size)
            if len(within) > DEEPEST or within[-1][1] > MOST_VALUES:
                raise ValueError(f"it nests deeper than {DEEPEST} levels, or aliases make over {MOST_VALUES} values")
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_yaml(path: Path, remedy: str = "Mend it.") -> Any:
    """Read a YAML file; raise ValueError, naming the file, with the remedy, if it is missing or as `parse_yaml`."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}. {remedy}") from error


@contextmanager
def written_in_folder(path: Path) -> Iterator[Path]:
    """Do as `written_whole`, but name the temporary file as `path`, in a folder: for writers that read the suffix."""
    folder = path.with_name(f".{path.name}.part")
    folder.mkdir(exist_ok=True)
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces `folder` when the block succeeds."""
    aside, before = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            folder.rename(before)
        try:
            aside.rename(folder)
        except BaseException:
            if before.exists():
                before.rename(folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Claim the right to write `path` for this process; yield False if another process holds it.

    The claim is a lock on `.NAME.lock` beside `path`. It ends with the process; the file may stay after a kill.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # before the release: a waiting process sees that it is gone
        lock.release()


def check_output(path: Path, overwrite: bool = False) -> None:
    """Raise ValueError if a file exists already or cannot be written; call it before the work."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists. Choose another name, or give --overwrite to replace it.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the file to write.")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: the folder {path.parent} does not exist. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: no permission to write into {path.parent}.")


def git_state() -> dict[str, Any]:
    """Describe the checkout: `commit`, `branch`, `dirty` and `difference`; all None if git does not track this file."""

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(Path(__file__).parent), *arguments]
            return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return dict.fromkeys(("commit", "branch", "dirty", "difference"))
    commit, branch = git("rev-parse", "HEAD"), git("rev-parse", "--abbrev-ref", "HEAD")
    difference = git("diff", "HEAD")
    return {
        "commit": commit and commit.strip(),
        "branch": branch and branch.strip(),
        "dirty": None if difference is None else bool(difference),
        "difference": difference,
    }


def file_hash(path: str | Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Whole files or none, and the state of the code that wrote them."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout


class NotWritten(ValueError):
    """A file that could not be written, such as for a disk that is full."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file it was that could not be written, for blocks that leave what was in it before as it is.

    Raises:
        NotWritten: for any error of the system.
    """
    try:
        yield
    except OSError as error:
        kept = "What was in it before is kept. " if path.is_file() and path.stat().st_size else ""
        raise NotWritten(f"{path} could not be written ({error.strerror or error}). {kept}Make room.") from error


@contextmanager
def appended(path: Path) -> Iterator[TextIO]:
    """Open a text file to add lines to: all that the block writes, or nothing.

    Raises:
        NotWritten: if it cannot be written.
    """
    before = path.stat().st_size if path.is_file() else 0
    with writing(path):
        try:
            with path.open("a", encoding="utf-8", newline="") as file:
                yield file
        except OSError:
            if path.is_file():
                os.truncate(path, before)  # else a part of a line would become one with the next
            raise


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it when the block ends well, remove it when not."""
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


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; NaN is no JSON and raises ValueError."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


@contextmanager
def written_in_folder(path: Path) -> Iterator[Path]:
    """As `written_whole`, for writers that go by the suffix: the temporary file has the name of `path`, in a folder."""
    folder = path.with_name(f".{path.name}.part")
    folder.mkdir(exist_ok=True)
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Claim what is to be written to `path` for this process; gives whether it could, or another has it.

    The system ends a claim with its process, however that ends. Its file, `.NAME.lock` beside `path`, may stay after a
    kill and is in nobody's way.
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
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        lock.release()


def check_output(path: Path, overwrite: bool = False) -> None:
    """Raise ValueError, naming the file, where one cannot be written or stands in the way, before the work is done."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists. Choose another name, or give --overwrite to replace it.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the file to write.")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: the folder {path.parent} does not exist. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: no permission to write into {path.parent}.")


def git_state() -> dict[str, Any]:
    """Commit, branch, whether the tree has changes, and those; None for all where the code is not from a checkout.

    A package that is installed within another project's checkout is of none: git does not track its files.
    """

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(Path(__file__).parent), *arguments]
            return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    def line(*arguments: str) -> str | None:
        output = git(*arguments)
        return output.strip() if output else None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return dict.fromkeys(("commit", "branch", "dirty", "difference"))
    difference = git("diff", "HEAD")
    return {
        "commit": line("rev-parse", "HEAD"),
        "branch": line("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if difference is None else bool(difference),
        "difference": difference,
    }


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

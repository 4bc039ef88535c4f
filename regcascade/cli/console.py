"""Output of the commands, and parsing of KEY=VALUE arguments."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table


def say(*lines: str) -> None:
    """Print lines without markup, colours or wrapping."""
    for line in lines:
        Console().print(line, markup=False, highlight=False, soft_wrap=True)


def label_names(texts: Iterable[str]) -> dict[int, str]:
    """Parse --label-names; raise ValueError for a text that is no VALUE=NAME."""
    names = {}
    for value, name in map(key_and_value, texts):
        if not value.isdecimal():
            raise ValueError(f"--label-names {value}={name}: give whole numbers and names, such as 1=liver.")
        names[int(value)] = name
    return names


def key_and_value(text: str) -> tuple[str, str]:
    """Split KEY=VALUE; raise ValueError for any other text."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"{text!r} is no KEY=VALUE.")
    return key, value


def table(title: str, *columns: str) -> Table:
    """Make a table without a frame: names in the first column, numbers in the others."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    made.show_edge = False
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made

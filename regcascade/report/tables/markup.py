"""Write a table of texts as Markdown, as LaTeX, and for the terminal."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regcascade.utils.files import write_text

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "\N{MINUS SIGN}": "$-$",
    "[": "{[}", "]": "{]}",  # a row that begins with a bracket would be an option of \\
}  # fmt: skip
_GAP = 3  # blanks between two columns
_LONGEST_NAME = 32


def markdown(table: pd.DataFrame) -> str:
    r"""Write a pipe table, the first column to the left and the others to the right, ending with a newline.

    >>> markdown(pd.DataFrame({"Method": ["a|b"], "Dice": ["0.9"]}))
    '| Method | Dice |\n| --- | ---: |\n| a\\|b | 0.9 |\n'
    """
    align = ["---", *["---:"] * (table.shape[1] - 1)]
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in [list(table), *_rows(table)]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], align, *rows[1:]])


def latex(table: pd.DataFrame) -> str:
    r"""Write a `tabular` for the package booktabs, ending with a newline; put it into a `table` with a caption."""
    head, *rows = (" & ".join(map(_latex, row)) + r" \\" for row in [list(table), *_rows(table)])
    begin = f"\\begin{{tabular}}{{{'l' + 'r' * (table.shape[1] - 1)}}}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""])


def write_texts(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write texts by the names of their files into a folder, each whole, and return the files."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def rich_table(title: str) -> Table:
    """Make an empty table for the terminal, in the one style of all tables."""
    return Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )


def terminal_tables(table: pd.DataFrame, title: str, width: int) -> list[Table]:
    """Split a table into as many, one below the other, as it takes for no column to be cut off at `width` characters.

    Each begins with the first column, whose long names are folded.
    """
    widths = [max(map(cell_len, [name, *table[name]])) for name in table]
    first = min(widths[0], _LONGEST_NAME)
    parts: list[list[int]] = []
    used = width
    for column in range(1, table.shape[1]):
        if not parts or used + _GAP + widths[column] > width:
            parts.append([])
            used = first
        parts[-1].append(column)
        used += _GAP + widths[column]
    tables = []
    for part in parts:
        shown = rich_table(title if part is parts[0] else "")
        shown.add_column(escape(str(table.columns[0])), overflow="fold", max_width=_LONGEST_NAME)
        for column in part:
            shown.add_column(escape(str(table.columns[column])), justify="right", no_wrap=True)
        for row in _rows(table.iloc[:, [0, *part]]):
            shown.add_row(*map(escape, row))
        tables.append(shown)
    return tables


def print_tables(table: pd.DataFrame, title: str, console: Console) -> None:
    """Print `terminal_tables`, a blank line after each."""
    for part in terminal_tables(table, title, console.width):
        console.print(part)
        console.print()


def _rows(table: pd.DataFrame) -> list[list[str]]:
    return table.to_numpy(dtype=object).tolist()


def _latex(text: str) -> str:
    text = re.sub(r"(?<![^\s(])-(?=\.?\d)", "\N{MINUS SIGN}", text)  # of a number, not a hyphen
    return "".join(_LATEX.get(character, character) for character in text)

"""A table of texts as Markdown, as LaTeX, and for the terminal."""

import re

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "\N{MINUS SIGN}": "$-$",
    "[": "{[}", "]": "{]}",  # a row that begins with a bracket would be an option of \\
}  # fmt: skip
_GAP = 3  # blanks between two columns
_LONGEST_NAME = 32


def markdown(table: pd.DataFrame) -> str:
    """A pipe table, the first column to the left and the others to the right, ending with a newline."""
    align = ["---", *["---:"] * (table.shape[1] - 1)]
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in [list(table), *_rows(table)]]
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], align, *rows[1:]])


def latex(table: pd.DataFrame) -> str:
    r"""A `tabular` for the package booktabs, ending with a newline; put it into a `table` with a caption."""
    head, *rows = (" & ".join(map(_latex, row)) + r" \\" for row in [list(table), *_rows(table)])
    columns = "l" + "r" * (table.shape[1] - 1)
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}", "",
        ]
    )  # fmt: skip


def terminal_tables(table: pd.DataFrame, title: str, width: int) -> list[Table]:
    """As many tables of rich, one below the other, as it takes for no column to be cut off at `width` characters.

    Each begins with the first column, of which long names are folded.
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
    return [_terminal(table.iloc[:, [0, *part]], title if part is parts[0] else "") for part in parts]


def _terminal(table: pd.DataFrame, title: str) -> Table:
    shown = Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for number, name in enumerate(table):
        if number == 0:
            shown.add_column(escape(name), overflow="fold", max_width=_LONGEST_NAME)
        else:
            shown.add_column(escape(name), justify="right", no_wrap=True)
    for row in _rows(table):
        shown.add_row(*map(escape, row))
    return shown


def _rows(table: pd.DataFrame) -> list[list[str]]:
    return [list(row) for row in table.itertuples(index=False)]


def _latex(text: str) -> str:
    text = re.sub(r"(?<![^\s(])-(?=\.?\d)", "\N{MINUS SIGN}", text)  # of a number, not a hyphen
    return "".join(_LATEX.get(character, character) for character in text)

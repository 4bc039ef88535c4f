"""Loggers of a run: `metrics.csv`, to which a resumed run adds, and Weights & Biases without a prompt."""

import csv
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from regcascade.utils.append_csv import drop_torn_line
from regcascade.utils.files import NotWritten, appended, writing, written_whole

METRICS_FILE = "metrics.csv"
FIRST_COLUMNS = ("step", "epoch")


class MetricsFile(Logger):
    """Writes `<save_dir>/metrics.csv`: a row for each time something is logged, a column for each name.

    Unlike Lightning's CSVLogger, which deletes the file it finds, it goes on with it: a resumed run has one
    history, and a killed one loses no row. The columns `step` and `epoch` come first, the others in the order
    in which they appeared. The config of a run is in its `config.yaml`, not here.

    Args:
        save_dir: the run folder.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._waiting: list[dict[str, Any]] = []
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Nothing: the file lies in the run folder itself."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the file lies in the run folder itself."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / METRICS_FILE

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | int | Tensor], step: int | None = None) -> None:
        """Note a row; `save` writes it."""
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self._waiting.append({"step": step, **row})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: `config.yaml` of the run folder holds them."""

    @rank_zero_only
    def save(self) -> None:
        """Append the rows noted since the last time; Lightning calls it after each logging.

        Raises:
            NotWritten: if the disk is full; the rows before are kept.
        """
        if not self._waiting:
            return
        if self._columns is None:
            self._columns = self._existing_columns()
        missing = [name for name in _names(self._waiting) if name not in self._columns]
        if missing:
            self._widen(missing)
        with appended(self.path) as file:
            csv.DictWriter(file, self._columns).writerows(self._waiting)
        self._waiting = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        try:
            self.save()
        except NotWritten:
            if status != "failed":  # else another error has ended the training, and it is the one to tell
                raise

    def _existing_columns(self) -> list[str]:
        """The header of a file that is already there, less a last line that a kill cut short."""
        if not self.path.is_file():
            return []
        drop_torn_line(self.path)
        with self.path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])

    def _widen(self, missing: list[str]) -> None:
        """Write the file anew with more columns, aside and then in place of the old one."""
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file, restkey="", restval=""))
        known = [*(self._columns or []), *missing]
        first = [name for name in FIRST_COLUMNS if name in known]
        columns = first + [name for name in known if name not in first]
        self._folder.mkdir(parents=True, exist_ok=True)
        with (
            writing(self.path),
            written_whole(self.path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns


def _names(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))

"""Logger that writes `metrics.csv`, which a resumed run continues."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from regcascade.utils.append_csv import AppendCSV

METRICS_FILE = "metrics.csv"


class MetricsFile(Logger):
    """Write `metrics.csv` into the run folder: `step`, `epoch`, then a column per name; a row per call.

    A crash loses no row. Lightning's CSVLogger deletes the file of the run it resumes; this one continues it.
    """

    name = version = ""  # the file is in the run folder itself

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / METRICS_FILE
        self._table: AppendCSV | None = None

    @property
    def save_dir(self) -> str:
        """Run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | int | Tensor], step: int | None = None) -> None:
        """Append a row; raise NotWritten if the disk is full, which keeps earlier rows."""
        if self._table is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._table = AppendCSV(self.path, widens=True)
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        epoch = {"epoch": row["epoch"]} if "epoch" in row else {}
        self._table.append({"step": step} | epoch | row)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config.yaml` holds them."""

"""Loggers of a run: `metrics.csv`, to which a resumed run adds, and Weights & Biases without a prompt."""

import csv
import netrc
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from regcascade import ranks
from regcascade.files import NotWritten, appended, writing, written_whole
from regcascade.growing import drop_torn_line
from regcascade.report.dashboard import JOB_TYPE, group_of, run_name

METRICS_FILE = "metrics.csv"
FIRST_COLUMNS = ("step", "epoch")

# What WANDB_MODE may say, by what it means for us.
_WANDB_MODES = {
    "online": "online",
    "run": "online",
    "shared": "shared",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


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


def wandb_mode() -> str:
    """How Weights & Biases is to run: `online` if a key is configured, `offline` if not; never a prompt.

    WANDB_MODE, where set, decides. A key is looked for where wandb itself looks: WANDB_API_KEY, its settings,
    the netrc file. Nothing is sent to find out.

    Raises:
        ValueError: if WANDB_MODE is no mode, or asks for a connection and there is no key.
    """
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked and asked not in _WANDB_MODES:
        raise ValueError(f"WANDB_MODE={asked} is not valid. Known: {', '.join(_WANDB_MODES)}.")
    mode = _WANDB_MODES.get(asked, "online")
    if mode in ("offline", "disabled") or _has_wandb_key():
        return mode
    if asked:
        raise ValueError(
            f"WANDB_MODE={asked} needs an API key: set WANDB_API_KEY or run `wandb login`, or leave "
            "WANDB_MODE out to log offline."
        )
    return "offline"


def wandb_logger(
    save_dir: str | Path,
    project: str = "regcascade",
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    entity: str | None = None,
    id: str | None = None,
) -> WandbLogger:
    """A Weights & Biases logger in the mode `wandb_mode` finds; its files go to `<save_dir>/wandb`.

    A folder that holds a W&B run already (one that is resumed) continues that run.

    Args:
        save_dir: the run folder.
        project: W&B's project.
        name: what the run is called there; by default by its overrides, see `dashboard.run_name`.
        group: runs to show together; by default those of its sweep.
        tags: words to find the run by, beside its model, cascade and n.
        entity: the user or team it belongs to.
        id: of the W&B run; by default a new one, or that of the run resumed.

    Raises:
        ValueError: if wandb is not installed, or for what `wandb_mode` raises.
    """
    try:
        import wandb  # noqa: F401  (an extra, so not imported with the module)
    except ImportError as error:
        raise ValueError("logger=wandb needs wandb: pip install -c constraints.txt -e '.[wandb]'.") from error
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    previous = _previous_wandb_id(folder)
    return WandbLogger(
        save_dir=folder,
        project=project,
        name=name or (None if previous else run_name(folder)),  # a resumed run keeps its name
        group=group or group_of(folder),
        job_type=JOB_TYPE,
        tags=tags,
        entity=entity,
        id=id or previous,
        mode=wandb_mode(),
    )


def close_loggers(loggers: Iterable[Logger], failed: bool = False) -> None:
    """End what loggers keep open after a fit, so that the next job of a sweep starts its own.

    W&B would otherwise log the next job of the same process into this one's run.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger) and ranks.is_first():
            logger.experiment.finish(exit_code=int(failed))
        elif isinstance(logger, TensorBoardLogger) and ranks.is_first():
            logger.experiment.close()


def _has_wandb_key() -> bool:
    """Whether wandb will find credentials; its own `login` would ask the server who we are."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    hosts = [urlsplit(settings.base_url).netloc]
    if settings.base_url == wandb.Settings().base_url:
        hosts.append("api.wandb.ai")  # where `wandb login` put the key while this was the default server
    return any(_in_netrc(host) for host in hosts)


def _in_netrc(host: str) -> bool:
    default = next((file for name in (".netrc", "_netrc") if (file := Path.home() / name).is_file()), None)
    path = os.environ.get("NETRC") or default
    try:
        found = netrc.netrc(path).authenticators(host) if path else None
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])


def _previous_wandb_id(folder: Path) -> str | None:
    """The id of the W&B run that a run folder holds; its folders are called `[offline-]run-<time>-<id>`."""
    found = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.name.split("run-", 1)[1])
    return found[-1].name.rsplit("-", 1)[1] if found else None


def _names(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))

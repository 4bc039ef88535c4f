"""Pictures and the final evaluation for the loggers that show pictures (W&B, TensorBoard)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from regcascade.cascades.checkpoint import read
from regcascade.data import RegistrationData
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.evaluation.run import summarise
from regcascade.report.figures.quality import measure_of
from regcascade.report.figures.registration import as_image
from regcascade.report.figures.run_figures import extreme_pairs, pair_figures, set_figures
from regcascade.report.figures.style import write_figure
from regcascade.report.runs.reload import Again, Setting
from regcascade.report.runs.run import read_runs

FIGURES = "figures"
PREFIX = "evaluation"


def log_picture(logger: Logger, key: str, figure: Figure, path: Path, step: int) -> None:
    """Send a figure to a W&B or TensorBoard logger; `path` is its file."""
    if isinstance(logger, WandbLogger):
        logger.log_image(key, [str(path)], step=step)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(key, as_image(figure), step, dataformats="HWC")


def log_evaluation(
    loggers: Sequence[Logger],
    folder: Path,
    table: pd.DataFrame,
    data: RegistrationData,
    checkpoint: Path | None,
    options: EvaluationOptions,
    step: int,
) -> None:
    """Log the evaluation of a run as `evaluation/<name>`: means, charts, its worst and its best pair.

    W&B also gets the table of pairs. Figures are written to `<folder>/figures/<name>.png`. Nothing is drawn if no
    logger shows pictures, and no pair without a checkpoint. `table` is that of `pairs.csv`.
    """
    takers = [logger for logger in loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
    if not takers:
        return
    means = {f"{PREFIX}/{name}": of["mean"] for name, of in summarise(table).items() if of["mean"] is not None}
    for logger in takers:
        logger.log_metrics(means, step)
        if isinstance(logger, WandbLogger):
            logger.log_table(f"{PREFIX}/pairs", dataframe=table, step=step)
    for name, figure in _figures(folder, table.set_index(["fixed", "moving"]), data, checkpoint, options):
        path = write_figure(figure, folder / FIGURES / f"{name}.png")
        for logger in takers:
            log_picture(logger, f"{PREFIX}/{name}", figure, path, step)


def _figures(
    folder: Path, pairs: pd.DataFrame, data: RegistrationData, checkpoint: Path | None, options: EvaluationOptions
) -> Iterator[tuple[str, Figure]]:
    try:
        measure_of({"": pairs})
    except ValueError:  # a diverged model has no measures, which must not end the training with an error
        return
    measured = read_runs([folder])
    yield from set_figures(measured)
    if checkpoint is not None:
        cascade = read(checkpoint).build()
        again = {measured[0].name: Again(cascade, data, Setting(cascade.n, options.r, options.repeat))}
        for chosen in extreme_pairs({"": pairs}, 1):
            yield from ((chosen[0], drawn.figure) for drawn in pair_figures(again, [chosen], [], "cpu"))

"""`regcascade train`: find what is resumed, build, fit, evaluate."""

import atexit
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_info
from omegaconf import DictConfig
from rich.console import Console

from regcascade.cascades.base import parts
from regcascade.cascades.checkpoint import Checkpoint, read
from regcascade.cli.failures import explained, resuming_training
from regcascade.cli.hydra_app import plain, record_run
from regcascade.cli.instantiate import built
from regcascade.cli.run_folder import alone_in, check_devices, check_keys, config_of_resumed, owner, to_resume
from regcascade.cli.sweep import check_direction, run_job
from regcascade.data import RegistrationData, build_data
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.evaluation.run import evaluate_to_folder
from regcascade.report.tables.terminal import measure_tables, model_table
from regcascade.training.build import build_module, build_trainer, place_trainer
from regcascade.training.callbacks.checkpoints import CHECKPOINTS
from regcascade.training.devices import devices_in_all
from regcascade.training.execution import set_execution
from regcascade.training.loggers.evaluation import log_evaluation
from regcascade.training.loggers.wandb_run import begin_logging, close_loggers
from regcascade.training.module import RegistrationModule
from regcascade.training.resume import check_resumed, check_state, restoring
from regcascade.utils.launch import follow_parent, outlive_parent
from regcascade.utils.registry import check_options, import_user_modules


def run(config: DictConfig) -> float | None:
    """Train, and return the objective of a sweep: the mean validation Dice, or the loss without labels."""
    with alone_in(Path(config.paths.run)):
        return run_job(config, lambda config: train(config)["objective"])


def train(config: DictConfig) -> dict[str, Any]:
    """Train a cascade, evaluate its best checkpoint, and print the measures.

    Returns:
        `module`, `trainer`, `data`, `rows` (DataFrame, a row per validation pair) and `objective`; the last two are
        None on all ranks but the first.
    """
    check_keys(config, "train")
    import_user_modules(config.imports)
    if _is_started_by_rank_0():
        follow_parent()

    checkpoint: Checkpoint | None = None
    changes: list[str] = []
    if (resumed := to_resume(config)) is not None:
        config, changes = config_of_resumed(config, resumed)
        checkpoint = read(resumed)
        check_state(checkpoint)
    options = _checked(config)
    folder = Path(options["paths"]["run"])

    L.seed_everything(options["seed"], workers=True, verbose=False)
    data = build_data(options["data"])
    check_direction(data.has_labels)
    module = build_module(options, data, fresh=checkpoint is None)
    if checkpoint is not None:
        otherwise = check_resumed(checkpoint, module)
        changes += otherwise if owner(checkpoint.path) is None else ()
    set_execution(module.cascade, options["trainer"], data.size, data.batch_size)
    loggers, callbacks = (built(options.get(group), options["imports"]) for group in ("logger", "callbacks"))
    trainer = build_trainer(options["trainer"], folder, loggers, callbacks, data.has_labels)
    for change in changes:
        rank_zero_info(f"Resumed with another {change}.")
    console = Console(quiet=not trainer.is_global_zero)
    if checkpoint is not None:
        console.print(f"Resuming {checkpoint.path} at step {checkpoint.step}.")
    console.print(model_table(parts(module.cascade)))
    if trainer.is_global_zero:
        record_run(folder, config)

    results = {"module": module, "trainer": trainer, "data": data, "rows": None, "objective": None}
    try:
        begin_logging(trainer.loggers, options, module.cascade.n, sum(of for _, of in parts(module.cascade)))
        with explained(data.num_workers, partial(resuming_training, folder / CHECKPOINTS)):
            path = None if checkpoint is None else checkpoint.path
            with restoring(checkpoint):
                trainer.fit(module, data, ckpt_path=path, weights_only=True)
        if trainer.is_global_zero:
            measured = EvaluationOptions(module.repeats.unless(options["r"]), options["repeat"])
            results |= _evaluated(trainer, module, data, folder, measured)
    except BaseException:
        close_loggers(trainer.loggers, failed=True)
        if _is_started_by_rank_0():
            atexit.register(outlive_parent)
        raise
    close_loggers(trainer.loggers)
    return results


def _checked(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain values, with the devices filled in, and check it before any work."""
    options = plain(config)
    options["trainer"] = place_trainer(options["trainer"])
    check_devices(devices_in_all(options["trainer"]))
    reproduces = options.get("reproduces") or {}
    if method := reproduces.get("method"):
        raise ValueError(
            f"experiment={reproduces['experiment']} trains nothing: python evaluate.py method={method} "
            f"data={reproduces['data']} data.validation_pairs=null."
        )

    def single_options(seed: int, r: int | None, repeat: str) -> None:
        """Declare the types of the options that are in no group."""

    check_options("train", {key: options[key] for key in ("seed", "r", "repeat")}, single_options)
    return options


def _is_started_by_rank_0() -> bool:
    """Whether Lightning started this process as another rank of a training."""
    return HydraConfig.initialized() and str(HydraConfig.get().job.name).startswith("train_ddp_process_")


def _evaluated(
    trainer: L.Trainer, module: RegistrationModule, data: RegistrationData, folder: Path, measured: EvaluationOptions
) -> dict[str, Any]:
    """Evaluate the best checkpoint on the validation pairs; print and write the measures."""
    kept = [folder / CHECKPOINTS / name for name in ("best.ckpt", "last.ckpt")]
    chosen = next((path for path in kept if path.is_file()), None)  # a short run may end before any validation
    if chosen is not None:
        read(chosen).load_into(module.cascade)
    again = "" if chosen is None else f": python evaluate.py checkpoint={chosen} measures it"
    with explained(data.num_workers, lambda: f"The training itself has ended and is kept in {folder}{again}."):
        rows = evaluate_to_folder(module.cascade, data, folder, chosen, measured, trainer.strategy.root_device)
        log_evaluation(trainer.loggers, folder, rows, data, chosen, measured, trainer.global_step)
    Console().print(*measure_tables(rows), f"Run folder: {folder}", sep="\n")
    loss = float(trainer.callback_metrics.get("val/loss", float("nan")))
    return {"rows": rows, "objective": float(rows["dice_mean"].mean()) if data.has_labels else loss}

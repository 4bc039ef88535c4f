"""Train a cascade: `python train.py model=drnet cascade=mcr n=3`; `--help` lists every option."""

from pathlib import Path
from typing import Any

import hydra
import lightning as L
from omegaconf import DictConfig
from rich.console import Console

from regcascade.callbacks import CHECKPOINTS, checkpoint_callbacks
from regcascade.cascades import Cascade, build
from regcascade.cascades.base import SMALLEST_SIDE
from regcascade.checkpoint import describe, load_affine, read
from regcascade.data import RegistrationData, build_data
from regcascade.entry import built, command, plain, reason, record_run
from regcascade.evaluation import EvaluationOptions, evaluate_to_folder, parts
from regcascade.losses import Objective
from regcascade.module import RegistrationModule
from regcascade.optimization import Optimization
from regcascade.registry import check_options, import_user_modules
from regcascade.report.logged import log_evaluation
from regcascade.report.loggers import close_loggers
from regcascade.report.tables import measure_tables, model_table
from regcascade.runs import check_devices, config_of_resumed, register_resolvers, to_resume
from regcascade.sweeps import run_job

SET_HERE = ("logger", "callbacks", "default_root_dir")  # of the Trainer

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
def main(config: DictConfig) -> float | None:
    """Train, and give a sweeper the mean validation Dice (the loss where nothing is labelled)."""
    return run_job(config, lambda config: train(config)["objective"], reason)


def train(config: DictConfig) -> dict[str, Any]:
    """Train a cascade as a config says, evaluate its best checkpoint, and print the measures.

    Returns:
        `module`, `trainer`, `data`, `rows` (a DataFrame, a row per validation pair) and `objective`; the last two
        are None on all ranks but the first.
    """
    import_user_modules(config.imports)
    resumed = to_resume(config)
    if resumed is not None:
        config = config_of_resumed(config, resumed)
    options = plain(config)
    _check_trains(options.get("reproduces") or {})
    check_options("train", {"seed": options["seed"], "r": options["r"], "repeat": options["repeat"]}, _run_options)
    L.seed_everything(options["seed"], workers=True, verbose=False)
    data = build_data(options["data"])
    module = build_module(options, data, fresh=resumed is None)
    checkpoint = None if resumed is None else read(resumed)
    if checkpoint is not None:
        checkpoint.check_fits(module.cascade)
    trainer = build_trainer(options, data)
    console = Console(quiet=not trainer.is_global_zero)
    if checkpoint is not None:
        console.print(f"Resuming {checkpoint.path} at step {checkpoint.step}.")
    if trainer.is_global_zero:
        record_run(Path(options["paths"]["run"]), config)
    for logger in trainer.loggers:
        logger.log_hyperparams(options)
    console.print(model_table(parts(module.cascade)))
    failed = True
    try:
        trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
        results = {"module": module, "trainer": trainer, "data": data, "rows": None, "objective": None}
        if trainer.is_global_zero:
            results |= _evaluated(trainer, module, data, options, console)
        failed = False
    finally:
        close_loggers(trainer.loggers, failed)
    return results


def build_module(options: dict[str, Any], data: RegistrationData, fresh: bool = True) -> RegistrationModule:
    """The cascade of a config in its Lightning module, with the weights it starts from if it is a fresh one."""
    if min(data.size) < SMALLEST_SIDE:
        raise ValueError(f"data.size={list(data.size)}: the networks need {SMALLEST_SIDE} voxels a side or more.")
    affine = dict(options["affine"])
    affine_checkpoint = affine.pop("checkpoint", None)
    model, strategy = options["model"], options["cascade"]
    cascade = build(model, strategy, options["n"], affine, data.size)
    cascade.order(options["r"], options["repeat"])  # which says what is wrong with them, before training
    if fresh:
        _give_weights(cascade, affine_checkpoint, options["init"])
    for group, cls in {"loss": Objective, "optimizer": Optimization}.items():
        check_options(group, options[group], cls)
    objective = Objective(**options["loss"])
    objective.check_supervision(data.scans_without)
    description = describe(
        model,
        strategy,
        cascade.n,
        affine,
        data.size,
        data.label_names,
        data.preprocessing,
        options["data"],
        options["loss"],
    )
    return RegistrationModule(
        cascade,
        objective,
        Optimization(**options["optimizer"]),
        description,
        tuple(data.label_names),
    )


def build_trainer(options: dict[str, Any], data: RegistrationData) -> L.Trainer:
    """Lightning's Trainer with the loggers and callbacks of a config."""
    folder = Path(options["paths"]["run"])
    check_options("trainer", options["trainer"], L.Trainer, reserved=SET_HERE)
    loggers = built(options["logger"], options["imports"])
    callbacks = [*built(options["callbacks"], options["imports"]), *checkpoint_callbacks(data.has_labels, folder)]
    try:
        trainer = L.Trainer(**options["trainer"], default_root_dir=folder, logger=loggers, callbacks=callbacks)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"The trainer options do not fit: {error}") from error
    check_devices(trainer.num_devices * trainer.num_nodes)
    return trainer


def _give_weights(cascade: Cascade, affine_checkpoint: str | None, init: str | None) -> None:
    if affine_checkpoint:
        load_affine(cascade, affine_checkpoint)
    if init:
        read(init).load_into(cascade)


def _evaluated(
    trainer: L.Trainer, module: RegistrationModule, data: RegistrationData, options: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Evaluate the best checkpoint on the validation pairs; print and write the table."""
    folder = Path(options["paths"]["run"])
    kept = [folder / CHECKPOINTS / name for name in ("best.ckpt", "last.ckpt")]
    chosen = next((path for path in kept if path.is_file()), None)  # a short run may end before any validation
    if chosen is not None:
        read(chosen).load_into(module.cascade)
    device = trainer.strategy.root_device
    measured = EvaluationOptions(options["r"], options["repeat"])
    rows = evaluate_to_folder(module.cascade, data, folder, chosen, measured, device)
    log_evaluation(trainer.loggers, folder, rows, data, chosen, measured, trainer.global_step)
    console.print(*measure_tables(rows), sep="\n")
    console.print(f"Run folder: {folder}")
    loss = float(trainer.callback_metrics.get("val/loss", float("nan")))
    return {"rows": rows, "objective": float(rows["dice_mean"].mean()) if data.has_labels else loss}


def _check_trains(reproduces: dict[str, Any]) -> None:
    """Refuse an experiment that is the evaluation of a method without training."""
    if method := reproduces.get("method"):
        raise ValueError(
            f"experiment={reproduces['experiment']} trains nothing: python evaluate.py method={method} "
            f"data={reproduces['data']} data.validation_pairs=null."
        )


def _run_options(seed: int, r: int, repeat: str) -> None:
    """The types of the options that stand by themselves."""


if __name__ == "__main__":
    command(main)

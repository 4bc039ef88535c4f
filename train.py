"""Train a cascade: `python train.py model=drnet cascade=mcr n=3`; `--help` lists every option."""

import atexit
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from omegaconf import DictConfig
from rich.console import Console

from regcascade.cascades import Cascade, build
from regcascade.cascades.base import SMALLEST_SIDE, parts
from regcascade.cascades.checkpoint import describe, load_affine, read
from regcascade.cli.failures import evaluating_again, explained, resuming_training
from regcascade.cli.hydra_app import built, command, plain, reason, record_run
from regcascade.cli.run_folder import alone_in, check_devices, config_of_resumed, owner, register_resolvers, to_resume
from regcascade.cli.sweep import check_direction, run_job
from regcascade.data import RegistrationData, build_data
from regcascade.evaluation.evaluate import EvaluationOptions
from regcascade.evaluation.run import evaluate_to_folder
from regcascade.losses import Objective
from regcascade.report.tables.terminal import measure_tables, model_table
from regcascade.training.callbacks.checkpoints import CHECKPOINTS, checkpoint_callbacks
from regcascade.training.checkpoint_io import WholeCheckpoints
from regcascade.training.devices import devices_in_all, placed
from regcascade.training.execution import (
    check_compiles,
    check_half_precision,
    check_numbers,
    check_precision,
    likely_device,
    split_trainer,
)
from regcascade.training.loggers.evaluation import log_evaluation
from regcascade.training.loggers.wandb_run import begin_logging, close_loggers
from regcascade.training.lr_finder import AUTO, find_learning_rate
from regcascade.training.memory_estimate import Step, shortage
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import MOMENTS, Optimization
from regcascade.training.resume import check_resumed, check_state, rate_of
from regcascade.utils.launch import follow_parent, outlive_parent
from regcascade.utils.registry import check_options, import_user_modules

SET_HERE = ("logger", "callbacks", "default_root_dir", "plugins")  # of the Trainer

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
def main(config: DictConfig) -> float | None:
    """Train, and give a sweeper the mean validation Dice (the loss where nothing is labelled)."""
    with alone_in(Path(config.paths.run)):
        return run_job(config, lambda config: train(config)["objective"], reason)


def train(config: DictConfig) -> dict[str, Any]:
    """Train a cascade as a config says, evaluate its best checkpoint, and print the measures.

    Returns:
        `module`, `trainer`, `data`, `rows` (a DataFrame, a row per validation pair) and `objective`; the last two
        are None on all ranks but the first.
    """
    import_user_modules(config.imports)
    if _is_started_by_rank_0():
        follow_parent()
    resumed, checkpoint, changes = to_resume(config), None, list[str]()
    if resumed is not None:
        config, changes = config_of_resumed(config, resumed)
        checkpoint = read(resumed)
        check_state(checkpoint)
        if config.optimizer.lr == AUTO:
            config.optimizer.lr = rate_of(checkpoint)
    options = plain(config)
    options["trainer"] = _placed(options["trainer"])
    _check_trains(options.get("reproduces") or {})
    check_options("train", {"seed": options["seed"], "r": options["r"], "repeat": options["repeat"]}, _run_options)
    L.seed_everything(options["seed"], workers=True, verbose=False)
    data = build_data(options["data"])
    check_direction(data.has_labels)
    module = build_module(options, data, fresh=resumed is None)
    if checkpoint is not None:
        otherwise = check_resumed(checkpoint, module)
        changes += otherwise if owner(checkpoint.path) is None else ()
    _prepare(module, data, options)
    if options["optimizer"]["lr"] == AUTO:
        config.optimizer.lr = options["optimizer"]["lr"] = _found_learning_rate(module, data, options)
    trainer = build_trainer(options, data)
    console = Console(quiet=not trainer.is_global_zero)
    for change in changes:
        rank_zero_info(f"Resumed with another {change}.")
    if checkpoint is not None:
        console.print(f"Resuming {checkpoint.path} at step {checkpoint.step}.")
    if trainer.is_global_zero:
        record_run(Path(options["paths"]["run"]), config)
    console.print(model_table(parts(module.cascade)))
    failed = True
    try:
        begin_logging(trainer.loggers, options, module.cascade.n, sum(of for _, of in parts(module.cascade)))
        with explained(data.num_workers, partial(resuming_training, Path(options["paths"]["run"]) / CHECKPOINTS)):
            trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
        results = {"module": module, "trainer": trainer, "data": data, "rows": None, "objective": None}
        if trainer.is_global_zero:
            results |= _evaluated(trainer, module, data, options, console)
        failed = False
    finally:
        close_loggers(trainer.loggers, failed)
        if failed and _is_started_by_rank_0():
            atexit.register(outlive_parent)
    return results


def build_module(options: dict[str, Any], data: RegistrationData, fresh: bool = True) -> RegistrationModule:
    """The cascade of a config in its Lightning module, with the weights it starts from if it is a fresh one."""
    if min(data.size) < SMALLEST_SIDE:
        raise ValueError(f"data.size={list(data.size)}: the networks need {SMALLEST_SIDE} voxels a side or more.")
    affine = _affine_options(options)
    affine_checkpoint = options["affine"].get("checkpoint")
    model, strategy = options["model"], options["cascade"]
    cascade = build(model, strategy, options["n"], affine, data.size)
    cascade.order(options["r"], options["repeat"])  # which says what is wrong with them, before training
    if fresh:
        _give_weights(cascade, affine_checkpoint, options["init"])
    optimizer = options["optimizer"]
    if optimizer["lr"] == AUTO:  # found later; it needs the module
        optimizer = {key: value for key, value in optimizer.items() if key != "lr"}
    for group, given, cls in (("loss", options["loss"], Objective), ("optimizer", optimizer, Optimization)):
        check_options(group, given, cls)
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
        Optimization(**optimizer),
        description,
        tuple(data.label_names),
    )


def build_trainer(options: dict[str, Any], data: RegistrationData) -> L.Trainer:
    """Lightning's Trainer with the loggers and callbacks of a config."""
    folder = Path(options["paths"]["run"])
    _, lightning = split_trainer(options["trainer"])
    loggers = built(options.get("logger"), options["imports"])
    callbacks = [*built(options.get("callbacks"), options["imports"]), *checkpoint_callbacks(data.has_labels, folder)]
    try:
        trainer = L.Trainer(
            **lightning,
            default_root_dir=folder,
            logger=loggers,
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
        )
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"The trainer options do not fit: {error}") from error
    return trainer


def _placed(trainer: dict[str, Any]) -> dict[str, Any]:
    """The trainer's options with the devices there are, before any work is done on them."""
    check_numbers(trainer)
    options = placed(trainer)
    check_options("trainer", split_trainer(options)[1], L.Trainer, reserved=SET_HERE)
    check_devices(devices_in_all(options))
    if str(trainer.get("strategy")).startswith("ddp") and options["strategy"] == "auto":
        rank_zero_info(f"trainer.strategy={trainer['strategy']} with one device: training in one process.")
    return options


def _prepare(module: RegistrationModule, data: RegistrationData, options: dict[str, Any]) -> None:
    """Let the cascade run as the trainer's options say, and warn where the device has too little memory for it."""
    trainer = options["trainer"]
    execution, _ = split_trainer(trainer)
    device = likely_device(trainer["accelerator"])
    check_precision(trainer["precision"], device)
    if execution.compile:
        check_compiles(device)
    execution.apply(module.cascade)
    check_half_precision(module.cascade, data.size, options["data"].get("batch_size", 1), trainer["precision"], device)
    step = Step(
        lambda n: build(options["model"], options["cascade"], n, _affine_options(options), data.size),
        module.objective,
        data.size,
        options["data"].get("batch_size", 1),
        str(trainer["precision"]),
        execution.recompute,
        MOMENTS[module.optimization.name],
    )
    if warning := shortage(step, module.cascade.n, device, not options["cascade"].get("stages")):
        rank_zero_warn(warning)


def _is_started_by_rank_0() -> bool:
    """Whether Lightning started this process as another rank of a training."""
    return HydraConfig.initialized() and str(HydraConfig.get().job.name).startswith("train_ddp_process_")


def _found_learning_rate(module: RegistrationModule, data: RegistrationData, options: dict[str, Any]) -> float:
    if devices_in_all(options["trainer"]) > 1:
        raise ValueError("optimizer.lr=auto is found on one device: run it with trainer.devices=1, then give the rate.")
    rate = find_learning_rate(module, data, split_trainer(options["trainer"])[1], Path(options["paths"]["run"]))
    rank_zero_info(f"optimizer.lr=auto: {rate:g} (see lr_find.png in the run folder).")
    return rate


def _affine_options(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options["affine"].items() if key != "checkpoint"}


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
    with explained(data.num_workers, partial(evaluating_again, folder, chosen)):
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

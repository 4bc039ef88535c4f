"""Train a cascade: `python train.py model=drnet cascade=mcr n=3`; `--help` lists every option."""

from pathlib import Path
from typing import Any

import hydra
import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from regcascade.callbacks import CHECKPOINTS, checkpoint_callbacks
from regcascade.cascades import Cascade, build
from regcascade.checkpoint import describe, load_affine, read
from regcascade.data import RegistrationData, build_data
from regcascade.entry import (
    built,
    owner,
    plain,
    record_run,
    register_resolvers,
    resumed_checkpoint,
    with_clear_errors,
)
from regcascade.evaluation import evaluate_to_folder, parts
from regcascade.losses import Objective
from regcascade.module import RegistrationModule
from regcascade.optimization import Optimization
from regcascade.registry import check_options
from regcascade.report.loggers import close_loggers
from regcascade.report.tables import measure_table, model_table

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
@with_clear_errors
def main(config: DictConfig) -> float | None:
    """Train, and give a sweeper the mean validation Dice (the loss where nothing is labelled)."""
    results = train(config)
    return results["objective"]


def train(config: DictConfig) -> dict[str, Any]:
    """Train a cascade as a config says, evaluate its best checkpoint, and print the measures.

    Returns:
        `module`, `trainer`, `data`, `rows` (a DataFrame, a row per validation pair) and `objective`.
    """
    resumed = _to_resume(config)
    if resumed is not None:
        config = _config_of_resumed(config, resumed)
    options = plain(config)
    folder = Path(options["paths"]["run"])
    L.seed_everything(options["seed"], workers=True, verbose=False)
    data = build_data(options["data"])
    cascade, description = build_cascade(options, data)
    for group, cls in {"loss": Objective, "optimizer": Optimization, "trainer": L.Trainer}.items():
        check_options(group, options[group], cls)
    module = RegistrationModule(
        cascade,
        Objective(**options["loss"]),
        Optimization(**options["optimizer"]),
        description,
        tuple(data.label_names),
    )
    trainer = L.Trainer(
        **options["trainer"],
        default_root_dir=folder,
        logger=built(options["logger"], options["imports"]),
        callbacks=[*built(options["callbacks"], options["imports"]), *checkpoint_callbacks(data.has_labels, folder)],
    )
    record_run(folder, config)
    for logger in trainer.loggers:
        logger.log_hyperparams(options)
    console = Console()
    console.print(model_table(parts(cascade)))
    failed = True
    try:
        trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
        failed = False
    finally:
        close_loggers(trainer.loggers, failed)
    return _finish(trainer, module, data, options, console)


def build_cascade(options: dict[str, Any], data: RegistrationData) -> tuple[Cascade, dict[str, Any]]:
    """The model of a config with the weights it starts from, and what its checkpoints will say of it."""
    affine = dict(options["affine"])
    affine_checkpoint = affine.pop("checkpoint", None)
    model, strategy, n = options["model"], options["cascade"], options["n"]
    cascade = build(model, strategy, n, affine, data.size)
    if affine_checkpoint:
        load_affine(cascade, affine_checkpoint)
    if options["init"]:
        read(options["init"]).load_into(cascade)
    description = describe(
        model, strategy, cascade.n, affine, data.size, data.label_names, data.preprocessing, options["data"]
    )
    return cascade, description


def _finish(
    trainer: L.Trainer,
    module: RegistrationModule,
    data: RegistrationData,
    options: dict[str, Any],
    console: Console,
) -> dict[str, Any]:
    """Evaluate the best checkpoint on the validation pairs, and print and write the table."""
    folder = Path(options["paths"]["run"])
    kept = [folder / CHECKPOINTS / name for name in ("best.ckpt", "last.ckpt")]
    chosen = next((path for path in kept if path.is_file()), None)  # a short run may end before any validation
    if chosen is not None:
        read(chosen).load_into(module.cascade)
    rows = evaluate_to_folder(
        module.cascade, data, folder, chosen,
        r=options["r"], repeat=options["repeat"], device=trainer.strategy.root_device,
    )  # fmt: skip
    console.print(measure_table(rows))
    console.print(f"Run folder: {folder}")
    labelled = data.has_labels
    objective = rows["dice_mean"].mean() if labelled else float(trainer.callback_metrics.get("val/loss", float("nan")))
    return {"module": module, "trainer": trainer, "data": data, "rows": rows, "objective": float(objective)}


def _to_resume(config: DictConfig) -> Path | None:
    if config.ckpt_path is None:
        return None
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError("ckpt_path resumes one run; a sweep (-m) starts new ones. Leave one of the two out.")
    resumed = resumed_checkpoint(config.paths.runs, config.ckpt_path)
    if resumed is None:
        where = f"under {config.paths.runs}/" if config.ckpt_path == "last" else f"at {config.ckpt_path}"
        raise ValueError(f"ckpt_path={config.ckpt_path}: there is no checkpoint {where} to resume.")
    return resumed


def _config_of_resumed(config: DictConfig, resumed: Path) -> DictConfig:
    """The config the run was started with, and the values given on this command line on top of it."""
    folder = owner(resumed)
    if folder is None:
        return config
    stored = OmegaConf.load(folder / "config.yaml")
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in given:
        key = override.lstrip("+").split("=", 1)[0]
        if OmegaConf.is_config(OmegaConf.select(stored, key)):
            raise ValueError(
                f"{override}: a resumed run keeps the {key} it was started with; change single values only."
            )
        OmegaConf.update(stored, key, OmegaConf.select(config, key), force_add=True)
    stored.paths, stored.imports = config.paths, config.imports  # the file's own imports are not to run
    return stored  # type: ignore[return-value]


if __name__ == "__main__":
    main()

"""Loggers and callbacks of a config; no other class can be instantiated."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from regcascade.training.loggers.wandb_run import wandb_logger
from regcascade.utils.registry import user_file_module

INSTANTIABLE = (
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "regcascade.training.callbacks.",
    "regcascade.training.loggers.",
)
_TARGETS_OF_0_1 = {  # today's names of the targets in config.yaml files of version 0.1
    "regcascade.averaging.AveragedWeights": "regcascade.training.callbacks.ema.AveragedWeights",
    "regcascade.callbacks.PictureCallback": "regcascade.training.callbacks.pictures.PictureCallback",
    "regcascade.callbacks.StopReason": "regcascade.training.callbacks.stop_reason.StopReason",
    "regcascade.monitors.GradientNorm": "regcascade.training.callbacks.monitors.GradientNorm",
    "regcascade.monitors.PeakMemory": "regcascade.training.callbacks.monitors.PeakMemory",
    "regcascade.monitors.Throughput": "regcascade.training.callbacks.monitors.Throughput",
    "regcascade.report.loggers.MetricsFile": "regcascade.training.loggers.metrics_file.MetricsFile",
    "regcascade.report.loggers.wandb_logger": "regcascade.training.loggers.wandb_run.wandb_logger",
    "regcascade.stopping.StopWithoutGain": "regcascade.training.callbacks.early_stopping.StopWithoutGain",
}


def built(configs: Mapping[str, Any] | None, imports: Sequence[str] = ()) -> list[Any]:
    """Build the loggers or callbacks of a config group, without those that are null.

    Allowed are Lightning's, ours, and those of the modules that the user imports, so that another user's config, such
    as that of a resumed run, cannot run other code.

    Raises:
        ValueError: for any other `_target_`.
    """
    files = {Path(module).stem: user_file_module(module) for module in imports if module.endswith(".py")}
    allowed = (*INSTANTIABLE, *(f"{module}." for module in [*files.values(), *imports] if not module.endswith(".py")))
    given = {name: _found(config, files) for name, config in (configs or {}).items() if config is not None}
    for name, config in given.items():
        target, *nested = list(_targets(config)) or [None]
        try:
            found = resolve_name(str(target)) if str(target).startswith(allowed) else None
        except (ImportError, AttributeError, ValueError):  # a name that leads nowhere
            found = None
        is_ours = found is wandb_logger or (isinstance(found, type) and issubclass(found, Callback | Logger))
        if nested or not is_ours or "_partial_" in config:
            raise ValueError(
                f"{name}: its _target_ is {', '.join(map(str, [target, *nested]))}, and it must be one logger or "
                f"callback of {', '.join(allowed)}."
            )
    return [instantiate(config) for config in given.values()]


def _found(config: Any, files: Mapping[str, str]) -> Any:
    """Replace a `_target_` by its present name: that in a Python file of `imports`, or after a move since 0.1."""
    if not isinstance(config, Mapping):
        return config
    target = str(config.get("_target_", ""))
    stem, _, rest = target.partition(".")
    today = f"{files[stem]}.{rest}" if stem in files else _TARGETS_OF_0_1.get(target)
    return {**config, "_target_": today} if today else config


def _targets(config: Any) -> Iterator[Any]:
    """Yield every `_target_` in nested plain values."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_":
                yield value
            yield from _targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _targets(value)

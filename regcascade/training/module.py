"""Lightning module that trains a cascade: batch, cascade, objective; and measures on validation pairs."""

import math
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from regcascade.cascades import Cascade
from regcascade.cascades.checkpoint import CHECKPOINT_KEY
from regcascade.data import RegistrationData
from regcascade.geometry.warp import warp_labels
from regcascade.losses import Objective, correlation_coefficient
from regcascade.metrics.jacobian import folding_percent
from regcascade.metrics.landmarks import landmark_distance_voxels
from regcascade.metrics.overlap import mean_dice
from regcascade.registration import Registration
from regcascade.training.optimizer import Optimization
from regcascade.training.repeats import Repeats
from regcascade.types import Batch, swapped
from regcascade.utils import distributed as ranks


class NonFiniteLossError(RuntimeError):
    """Raised if the loss is NaN or infinite, with the term and the pair."""


class RegistrationModule(L.LightningModule):
    """Train a cascade.

    Checkpoints hold the `description` of the model (see `checkpoint.describe`). The validation Dice is averaged over
    the values of `labels`. Validation applies each network as often as training does at most.
    """

    def __init__(
        self,
        cascade: Cascade,
        objective: Objective,
        optimization: Optimization | None = None,
        description: Mapping[str, Any] | None = None,
        labels: tuple[int, ...] = (),
        repeats: Repeats | None = None,
    ) -> None:
        super().__init__()
        objective.check_levels(cascade.levels)
        if cascade.detach and cascade.n > 1:
            objective.check_detached()
        self.cascade = cascade
        self.objective = objective
        self.optimization = optimization or Optimization()
        self.description = dict(description or {})
        self.labels = labels
        self.repeats = repeats or Repeats()
        self._validation_rows: list[dict[str, float]] = []
        self._validation_failures: list[str] = []
        self._time_done = 0.0

    def setup(self, stage: str) -> None:
        """Raise ValueError if a scan lacks what the model or the objective needs."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, RegistrationData):
            self.objective.check_supervision(data.scans_without)
            without = data.scans_without("alignment") if self.cascade.needs_alignment else []
            if without:
                raise ValueError(
                    f"affine=precomputed needs every scan aligned to the same scan, and {len(without)} are not "
                    f"({without[0]} among them): prepare them with regcascade prepare --align SCAN."
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch, and log the mean of each term over the ranks as `train/<term>`."""
        self._time_done = self._share_of_time()
        self.cascade.on_progress(self.done())
        how = self.repeats.at(self.global_step), self.repeats.repeat
        registration = self.cascade.register(batch, *how)
        reverse = self.cascade.register(swapped(batch), *how) if self.objective.both_ways else None
        terms = self.objective(registration, batch["fixed"], batch, reverse)
        # One exchange gives every rank the means, and tells of a loss that is not finite before any weight changes.
        means = dict(zip(terms, ranks.mean(torch.stack(list(terms.values()))), strict=True))
        if not means["loss"].isfinite():
            failures = [failure for failure in ranks.gathered(_not_finite(terms, batch)) if failure]
            raise NonFiniteLossError(failures[0] if failures else "The mean loss over the ranks overflows.")
        self.log_dict({f"train/{name}": value for name, value in means.items()}, batch_size=len(batch["fixed"]))
        self.log("loss", means["loss"], prog_bar=True, logger=False, batch_size=len(batch["fixed"]))
        return terms["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Register the pairs of a batch, and measure each before and after.

        The loss omits weak supervision, so that it is comparable between trainings with and without it, and inverse
        consistency, which needs the reverse registration.
        """
        registration = self.cascade.register(batch, self.repeats.most, self.repeats.repeat)
        terms = self.objective(registration, batch["fixed"])
        if failure := _not_finite(terms, batch):
            if ranks.count() == 1:
                raise NonFiniteLossError(failure)
            self._validation_failures.append(failure)
        measures = self._measures(batch, registration)
        loss_terms = {name: float(value) for name, value in terms.items()}
        self._validation_rows += [loss_terms | row for row in measures]
        return {"registration": registration, "measures": measures}

    def on_validation_epoch_end(self) -> None:
        """Log the mean of each measure over the validation pairs that have it as `val/<measure>`."""
        if failures := [failure for share in ranks.gathered(self._validation_failures) for failure in share]:
            raise NonFiniteLossError(failures[0])
        shares, self._validation_rows = ranks.gathered(self._validation_rows), []
        rows = [row for each in zip_longest(*shares) for row in each if row is not None]  # rank r has every w-th pair
        if ranks.count() > 1:  # some pairs come twice, so that the shares are equally long
            rows = rows[: len(self.trainer.val_dataloaders.dataset)]  # type: ignore[union-attr]  # there is one
        for name in dict.fromkeys(name for row in rows for name in row):
            known = [row[name] for row in rows if name in row and not math.isnan(row[name])]
            if known:
                mean = sum(known) / len(known)
                self.log(f"val/{name}", mean, prog_bar=name == "dice", batch_size=len(known), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Build the optimiser of the trained parameters, and its schedule, which is applied at every step."""
        heads = [p for net in self.cascade.nets for p in net.get_submodule("heads").parameters()]
        mixed = self._trainer is not None and isinstance(self.trainer.precision_plugin, MixedPrecision)
        learning = (p for p in self.cascade.parameters() if p.requires_grad)
        optimizer = self.optimization.optimizer(learning, heads, mixed)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimization.factor(step, lambda: self.cascade.phase_done(self.done()))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def done(self) -> float:
        """Compute the fraction of the training that is done, by steps or by time, whichever is larger."""
        if self._trainer is None or not self.trainer.training:
            return 0.0
        return max(self.global_step / self.trainer.estimated_stepping_batches, self._time_done)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description, by which the checkpoint is loaded without its config."""
        checkpoint[CHECKPOINT_KEY] = self.description
        data = getattr(self._trainer, "datamodule", None)
        if isinstance(data, RegistrationData) and data.unsettled_batches:  # of accumulated gradients: drawn again
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                settled = counts["ready"] - data.unsettled_batches
                counts |= {"ready": settled, "started": settled, "processed": settled, "completed": settled}

    def _share_of_time(self) -> float:
        """Compute the elapsed fraction of the time limit by the clock of rank 0, so that all ranks agree."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set undeclared
            if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
                elapsed = callback.time_elapsed()
                return ranks.of_first(elapsed / max(elapsed + left, 1e-9))
        return 0.0

    def _measures(self, batch: Batch, registration: Registration) -> list[dict[str, float]]:
        flow, nothing = registration.flow, torch.zeros_like(registration.flow)
        columns = {
            "cc_before": correlation_coefficient(batch["moving"], batch["fixed"]),
            "cc": correlation_coefficient(registration.moved, batch["fixed"]),
            "folding_percent": folding_percent(flow),
        }
        if "fixed_labels" in batch:
            labels, fixed = batch["moving_labels"], batch["fixed_labels"]
            columns["dice_before"] = mean_dice(labels, fixed, self.labels)
            columns["dice"] = mean_dice(warp_labels(labels, flow), fixed, self.labels)
        if "fixed_points" in batch:
            points = batch["fixed_points"], batch["moving_points"]
            columns["landmark_distance_voxels_before"] = landmark_distance_voxels(*points, nothing)
            columns["landmark_distance_voxels"] = landmark_distance_voxels(*points, flow)
        lists = {name: values.tolist() for name, values in columns.items()}
        return [{name: values[i] for name, values in lists.items()} for i in range(len(flow))]


def _not_finite(terms: Mapping[str, Tensor], batch: Batch) -> str:
    """Name the terms that are not finite, and the pairs; empty if the loss is finite."""
    if terms["loss"].isfinite():
        return ""
    bad = [name for name, value in terms.items() if name != "loss" and not value.isfinite()] or ["loss"]
    pairs = zip(batch["fixed_name"], batch["moving_name"], strict=True)
    names = "; ".join(f"fixed {fixed}, moving {moving}" for fixed, moving in pairs)
    return (
        f"The loss term {', '.join(bad)} is not finite for the pair ({names}). Look at these scans, "
        "lower optimizer.lr, or set trainer.precision=32. A checkpoint, where there is one, is from before this step."
    )

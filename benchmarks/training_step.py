"""What the framework costs: a training step at 64^3 through Lightning against a bare PyTorch loop.

Both have the identical network, warp, loss, optimiser and images; `limit` bounds their ratio. MONAI's VoxelMorph with
its own Warp stands beside them for information: `python benchmarks/training_step.py --models voxelmorph vtn`.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping

import lightning as L
import torch
from comparison import Row, parsed, parser, report
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from monai.networks.nets import VoxelMorph
from torch import Tensor
from torch.utils.data import DataLoader

from regcascade.cascades import build
from regcascade.data.datasets.phantom import PhantomData
from regcascade.data.pairs import collate
from regcascade.geometry.warp import warp
from regcascade.losses import Objective, correlation_coefficient, smoothness
from regcascade.networks import build_net
from regcascade.training.loggers.metrics_file import MetricsFile
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization
from regcascade.types import Batch

MODELS = ("voxelmorph", "vtn", "drnet", "pyramid")
WARM_UP = 3
LIMIT = 1.1
LEARNING_RATE = 1e-4

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # moving, fixed -> moved, flow


def main() -> None:
    """Time every step of each, in turn."""
    asked = parser(__doc__, repeats=40)
    asked.add_argument("--models", nargs="+", default=MODELS, help="base networks")
    asked.add_argument("--size", type=int, nargs=3, default=(64, 64, 64), metavar=("X", "Y", "Z"), help="sides")
    given = parsed(asked)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    x, y, z = given.size
    cases = PhantomData(size=(x, y, z), train=2, validation=2).cases
    pairs = [collate([(cases[0], cases[1])]), collate([(cases[1], cases[0])])]
    batches = [pairs[k % 2] for k in range(WARM_UP + given.repeats)]
    for model in given.models:
        row = Row(f"{model}, CR, n=1, {x}x{y}x{z}, batch 1", _compared(model, batches), LIMIT)
        report("training_step", [row], given)


def _compared(model: str, batches: list[Batch]) -> dict[str, float]:
    """Median seconds a step of a base network with the framework and without, and of MONAI's."""
    network, theirs = build_net(model), VoxelMorph(integration_steps=0)

    def bare(moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        flow = network(moving, fixed)[0]
        return warp(moving, flow), flow

    others = {
        "bare PyTorch": _training(network, bare, batches),
        "MONAI": _training(theirs, lambda moving, fixed: theirs(moving, fixed), batches),
    }
    return _times(RegistrationModule(build(model), Objective(), Optimization(lr=LEARNING_RATE)), batches, others)


class TakeTurns(Callback):
    """Times a step of Lightning's, from the end of this callback to its next call, then lets the others do theirs."""

    def __init__(self, others: Mapping[str, Iterator[None]]) -> None:
        self.others = others
        self.seconds: dict[str, list[float]] = {name: [] for name in ("regcascade", *others)}
        self.start = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first step begins."""
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """A step of Lightning's is done."""
        self._note("regcascade")
        # Whoever comes after the large network finds cold caches, so the others change places.
        turn = list(self.others) if batch_idx % 2 else list(reversed(self.others))
        for name in turn:
            next(self.others[name])
            self._note(name)

    def _note(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name].append(now - self.start)
        self.start = time.perf_counter()


def _times(module: RegistrationModule, batches: list[Batch], others: Mapping[str, Iterator[None]]) -> dict[str, float]:
    """Median seconds a step, the framework logging as `python train.py` does, but at every step."""
    turns = TakeTurns(others)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=len(batches),
            logger=MetricsFile(folder),
            log_every_n_steps=1,
            callbacks=[LearningRateMonitor("step"), turns],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, _loader(batches))
    return {name: statistics.median(values[WARM_UP:]) for name, values in turns.seconds.items()}


def _training(network: torch.nn.Module, forward: Forward, batches: list[Batch]) -> Iterator[None]:
    """A training without any framework; each turn is a step of it."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    network.train()
    for batch in _loader(batches):
        optimizer.zero_grad()
        moved, flow = forward(batch["moving"], batch["fixed"])
        similarity = (1 - correlation_coefficient(moved, batch["fixed"])).mean()
        (similarity + 0.5 * smoothness(flow)).backward()
        optimizer.step()
        yield


def _loader(batches: list[Batch]) -> DataLoader[Batch]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

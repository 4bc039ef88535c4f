"""The Lightning data module: pairs of a set, for training and for validation."""

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from regcascade.data.augmentation import AugmentationSpec, build_augmentation, each_by_its_own
from regcascade.data.case import CaseSet
from regcascade.data.options import check_count, check_size
from regcascade.data.pairs import (
    CasePair,
    DrawnPairs,
    ListedPairs,
    NamePair,
    PairSampler,
    Progress,
    RandomPairs,
    TrainingPairs,
    collate,
    collate_images,
    read_pairs,
    some_pairs,
)
from regcascade.data.splits import Split
from regcascade.types import Batch, Size

# Streams of random numbers; the pairs have 1 and 2.
_AUGMENTATION, _NETWORK = 3, 4


class RegistrationData(LightningDataModule):
    """Pairs of one set of cases: random ones of its training part, fixed ones for validation and test.

    A training pair, its augmentation and what a network draws for it (dropout) depend on the seed and on how many pairs
    went before, and nothing else. That number goes into the checkpoint, so a resumed run sees the pairs that an
    uninterrupted one would have seen, and w ranks see those of one process with w times the batch.

    Args:
        cases: the scans.
        split: which of them train and validate, and how they are paired.
        batch_size: pairs in a training batch, on each device. Validation and test take them one by one.
        num_workers: processes that prepare pairs; 0 is fastest for cases held in memory.
        seed: of the pairs and the augmentation.
        pairs: a CSV file of the validation pairs, with any scans of the set; None takes those of the split.
        validation_pairs: how many of the validation pairs to draw, if no file lists them; None for all.
        pairs_per_epoch: length of a training epoch, over all devices.
        augmentation: `none`, a name, a mapping with `name` and options, or a list of them, applied in turn.
        validate: read every scan of a run once before it trains, to find damaged ones and to fill the cache.

    Attributes:
        label_names: what each label value means, background left out.
        size: sides of every image in voxels.
        preprocessing: how a scan becomes a case, as plain values for a checkpoint.
        validation_pairs: the names (fixed, moving) of the pairs of validation and test, in order.

    Raises:
        ValueError: for an option that is not valid, a pair list that is not, or a split that leaves no pair.
    """

    def __init__(
        self,
        cases: CaseSet,
        split: Split,
        *,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        pairs: str | None = None,
        validation_pairs: int | None = 60,
        pairs_per_epoch: int = 1000,
        augmentation: AugmentationSpec = "none",
        validate: bool = True,
    ) -> None:
        super().__init__()
        self.cases = cases
        self.split = split
        self.preprocessing = cases.preprocessing
        self.size: Size = check_size("data.size", self.preprocessing["size"])
        self.label_names = dict(cases.label_names)
        self.batch_size = check_count("data.batch_size", batch_size, 1)
        self.num_workers = check_count("data.num_workers", num_workers, 0)
        self.seed = check_count("data.seed", seed, 0)
        self.pairs_per_epoch = check_count("data.pairs_per_epoch", pairs_per_epoch, 1)
        self.augmentation = build_augmentation(augmentation)
        self.validate = validate
        if self.pairs_per_epoch < self.batch_size:
            raise ValueError(f"data.pairs_per_epoch={pairs_per_epoch} is less than data.batch_size={batch_size}.")
        self.validation_pairs = self._choose_pairs(pairs, validation_pairs)
        self._position = {name: index for index, name in enumerate(cases.names)}
        self._progress = Progress()
        self._read: set[str] = set()

    @property
    def train_names(self) -> list[str]:
        """List the scans that train."""
        return self.split.train

    @property
    def has_labels(self) -> bool:
        """Whether every scan of the validation pairs has labels."""
        return self._all_labelled(self._validation_names)

    def set_of(self, name: str) -> str:
        """Find the name of the set that a scan is from, where several are mixed; nothing elsewhere."""
        return self.cases.set_of(self._position[name])

    def scans_without(self, part: str) -> list[str]:
        """List the scans that train without their `labels`, `points` or `alignment`; this may read them."""
        has = {"labels": self.cases.labelled, "points": self.cases.landmarked, "alignment": self.cases.aligned}[part]
        return [name for name in self._training_names() if not has(self._position[name])]

    def setup(self, stage: str) -> None:
        """Before training, check that there is something to train on, and read every scan it will need, if `validate`.

        Raises:
            ValueError: if fewer than two scans train, or naming the file of a scan that is damaged.
        """
        if stage != "fit":
            return
        if len(self.train_names) < 2:
            raise ValueError(
                f"The split leaves {len(self.train_names)} scans for training, and a pair needs two. "
                "Change data.train or data.validation."
            )
        if self.validate:
            names = {*self.train_names, *self._validation_names}
            names |= set() if self.split.atlas is None else {self.split.atlas}
            self._read_once(sorted(names - self._read))

    def train_dataloader(self) -> DataLoader[CasePair]:
        """Draw random pairs, from where training stands.

        Raises:
            ValueError: if an epoch has less than one batch on every device.
        """
        shared = self._validation_names & set(self.train_names) - {self.split.atlas}
        if shared:
            warnings.warn(
                f"{len(shared)} scans of the validation pairs also train ({sorted(shared)[0]} among them): "
                "their scores say nothing of unseen scans. Leave them out by data.train or data.validation.",
                stacklevel=2,
            )
        pairs = self._training_pairs()
        if self.batch_size > pairs.count:
            warnings.warn(
                f"data.batch_size={self.batch_size} is more than the {pairs.count} pairs that can be drawn: a batch "
                f"repeats them, and a step takes that much longer. Set it to {pairs.count} or less.",
                stacklevel=2,
            )
        sampler = PairSampler(pairs, self._progress, self.batch_size, *self._ranks())
        return _ResumableLoader(
            pairs, self.batch_size, sampler=sampler, drop_last=True, **self._loading(self._training_names())
        )

    def val_dataloader(self) -> DataLoader[CasePair]:
        """Load the validation pairs one by one; rank r of w has every w-th, the last ones twice where shares differ."""
        return self._one_by_one(*self._ranks())

    def test_dataloader(self) -> DataLoader[CasePair]:
        """Load the same pairs as in validation, all of them on every rank: whoever evaluates shares them out."""
        return self._one_by_one()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count and augment a training batch, on the device it is on; leave any other alone."""
        if self.trainer is None or not self.trainer.training:
            return batch
        self._settle()
        ranks, rank = self._ranks()
        first, size = self._progress.consumed + rank, len(batch["fixed_name"])
        self._progress.consumed += size * ranks
        torch.manual_seed(self._seed_of(_NETWORK, first))
        if self.augmentation is None:
            return batch
        draws = range(first, first + size * ranks, ranks)
        generators = [torch.Generator().manual_seed(self._seed_of(_AUGMENTATION, draw)) for draw in draws]
        return each_by_its_own(self.augmentation, batch, generators)

    @property
    def unsettled_batches(self) -> int:
        """Count the batches of each rank whose gradients have not moved the weights yet."""
        self._settle()
        return (self._progress.consumed - self._progress.settled) // (self.batch_size * self._ranks()[0])

    def state_dict(self) -> dict[str, Any]:
        """Tell a checkpoint how many training pairs, over all devices, have moved the weights."""
        self._settle()
        return {"consumed_pairs": self._progress.settled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the pairs of a checkpoint."""
        consumed = int(state_dict["consumed_pairs"])
        self._progress.consumed, self._progress.settled, self._progress.steps = consumed, consumed, 0

    def _choose_pairs(self, file: str | None, count: int | None) -> list[NamePair]:
        if count is not None:
            check_count("data.validation_pairs", count, 1)
        if file is not None:
            return read_pairs(file, self.cases.names)
        if self.split.pairs is not None:
            return some_pairs(self.split.pairs, count, self.seed)
        if len(self.split.validation) < 2:
            raise ValueError(
                f"The split leaves {len(self.split.validation)} scans for validation, and a pair needs two. "
                "Raise data.validation, or list pairs in a file: data.pairs=pairs.csv."
            )
        return some_pairs(list(permutations(sorted(self.split.validation), 2)), count, self.seed)

    def _training_pairs(self) -> TrainingPairs:
        drawn = self.seed, self.pairs_per_epoch
        if self.split.train_pairs is not None:
            listed = [(self._position[fixed], self._position[moving]) for fixed, moving in self.split.train_pairs]
            return DrawnPairs(self.cases, listed, *drawn)
        pools = [([self._position[name] for name in names], weight) for names, weight in self._pools]
        atlas = None if self.split.atlas is None else self._position[self.split.atlas]
        return RandomPairs(self.cases, pools, *drawn, atlas)

    @property
    def _pools(self) -> Sequence[tuple[Sequence[str], float]]:
        return [(self.train_names, 1.0)] if self.split.pools is None else self.split.pools

    @property
    def _validation_names(self) -> set[str]:
        return {name for pair in self.validation_pairs for name in pair}

    def _training_names(self) -> list[str]:
        """List the scans that training pairs are made of, the atlas among them."""
        names = {name for members, _ in self._pools for name in members}
        return sorted(names | ({self.split.atlas} if self.split.atlas is not None else set()))

    def _settle(self) -> None:
        """Note that what was consumed has moved the weights, if the optimiser has made a step since."""
        steps = self.trainer.global_step if self.trainer else 0
        if steps > self._progress.steps:
            self._progress.settled, self._progress.steps = self._progress.consumed, steps

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _seed_of(self, stream: int, draw: int) -> int:
        return int(np.random.SeedSequence((self.seed, stream, draw)).generate_state(1)[0])

    def _all_labelled(self, names: Iterable[str]) -> bool:
        return all(self.cases.labelled(self._position[name]) for name in names)

    def _one_by_one(self, ranks: int = 1, rank: int = 0) -> DataLoader[CasePair]:
        pairs = ListedPairs(self.cases, self.validation_pairs)
        sampler: DistributedSampler[CasePair] | None = None
        if ranks > 1:
            sampler = DistributedSampler(pairs, ranks, rank, shuffle=False)
        return DataLoader(pairs, 1, sampler=sampler, **self._loading(self._validation_names))

    def _loading(self, names: Iterable[str]) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": collate if self._all_labelled(names) else collate_images,
        }

    def _read_once(self, names: Sequence[str]) -> None:
        quiet = not names or (self.trainer is not None and not self.trainer.is_global_zero)

        def read(name: str) -> None:  # hands nothing back: without a cache the whole set would pile up in the queue
            _ = self.cases[self._position[name]]

        # Unpacking a file and NumPy's arithmetic let go of the interpreter's lock, so threads run side by side. After
        # an error no thread outlives the pool: one that still reads when Python exits would abort the process.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            reading, console = pool.map(read, names), Console(stderr=True)
            for _ in track(reading, "Reading scans", len(names), transient=True, console=console, disable=quiet):
                pass
        self._read.update(names)


class _ResumableLoader(DataLoader[CasePair]):
    """A loader that may resume within an epoch, as Lightning asks; the data module keeps the position."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing."""

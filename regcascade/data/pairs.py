"""Ordered pairs (fixed, moving): drawn for training, listed for validation; and their batches."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from regcascade.data.case import Case, CaseSet
from regcascade.geometry.affine import between_voxels
from regcascade.types import Batch
from regcascade.utils.registry import did_you_mean

CasePair = tuple[Case, Case]
NamePair = tuple[str, str]

# Streams of random numbers under one seed.
_TRAINING, _VALIDATION = 1, 2


class TrainingPairs(Dataset[CasePair], ABC):
    """The pairs of training: draw k is a function of (seed, k) alone.

    Workers and ranks share nothing, and training resumes by going on at the next k. Any k from 0 is valid.

    Args:
        cases: the set.
        seed: of the draws.
        length: what `len` says.
    """

    count: int  # how many different pairs can be drawn

    def __init__(self, cases: CaseSet, seed: int, length: int) -> None:
        self.cases = cases
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: int) -> CasePair:
        fixed, moving = self.draw(draw)
        return self.cases[fixed], self.cases[moving]

    @abstractmethod
    def draw(self, k: int) -> tuple[int, int]:
        """Draw the positions in the set of a fixed and a moving scan."""

    def generator(self, k: int) -> np.random.Generator:
        """Build the counter-based generator of draw k."""
        # The generator counts in the first word of its counter; k has another to itself.
        bits = np.random.Philox(
            key=np.array([self.seed, _TRAINING], np.uint64), counter=np.array([0, k, 0, 0], np.uint64)
        )
        return np.random.Generator(bits)


class RandomPairs(TrainingPairs):
    """Uniform over the ordered pairs of a pool; no list of pairs is kept.

    Args, beside those of `TrainingPairs`:
        pools: positions in the set of at least two scans that are paired with one another, and how often to draw from
            these beside other pools.
        atlas: the position of the scan that is fixed in every pair; None to draw the fixed scan too.
    """

    def __init__(
        self,
        cases: CaseSet,
        pools: Sequence[tuple[Sequence[int], float]],
        seed: int,
        length: int,
        atlas: int | None = None,
    ) -> None:
        super().__init__(cases, seed, length)
        # The atlas is no moving scan of its own.
        self.pools = [[position for position in positions if position != atlas] for positions, _ in pools]
        for members in self.pools:
            if len(members) < (2 if atlas is None else 1):
                raise ValueError(f"A pair needs two scans; the set has {len(members)}.")
        weights = np.array([weight for _, weight in pools], float)
        self.shares = np.cumsum(weights) / weights.sum()
        self.atlas = atlas
        self.count = sum(len(members) * (len(members) - 1 if atlas is None else 1) for members in self.pools)

    def draw(self, k: int) -> tuple[int, int]:
        """Draw the positions in the set of a fixed and a moving scan."""
        random = self.generator(k)
        # One pool takes no draw, so that its pairs do not depend on there being a choice of pools.
        pool = int(np.searchsorted(self.shares, random.random(), side="right")) if len(self.pools) > 1 else 0
        members = self.pools[pool]
        if self.atlas is not None:
            return self.atlas, members[int(random.integers(len(members)))]
        fixed = int(random.integers(len(members)))
        moving = int(random.integers(len(members) - 1))
        moving += moving >= fixed
        return members[fixed], members[moving]


class DrawnPairs(TrainingPairs):
    """Uniform over listed pairs, which are positions (fixed, moving) in the set."""

    def __init__(self, cases: CaseSet, pairs: Sequence[tuple[int, int]], seed: int, length: int) -> None:
        super().__init__(cases, seed, length)
        self.pairs = list(pairs)
        self.count = len(self.pairs)

    def draw(self, k: int) -> tuple[int, int]:
        """Draw the positions in the set of a fixed and a moving scan."""
        return self.pairs[int(self.generator(k).integers(len(self.pairs)))]


class ListedPairs(Dataset[CasePair]):
    """Given pairs, by name, in their order."""

    def __init__(self, cases: CaseSet, pairs: Sequence[NamePair]) -> None:
        self.cases = cases
        self.pairs = list(pairs)
        self._position = {name: index for index, name in enumerate(cases.names)}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> CasePair:
        fixed, moving = self.pairs[index]
        return self.cases[self._position[fixed]], self.cases[self._position[moving]]


@dataclass
class Progress:
    """Training pairs a run has consumed, over all ranks, and how many of them have moved the weights after `steps`."""

    consumed: int = 0
    settled: int = 0
    steps: int = 0


class PairSampler(DistributedSampler[int]):
    """Consecutive draws from where training stands; rank r of w takes every w-th, in whole batches.

    Lightning would replace any sampler but a `DistributedSampler` by one that starts at 0 again.

    Raises:
        ValueError: if an epoch has less than one batch on every rank.
    """

    def __init__(
        self, pairs: TrainingPairs, progress: Progress, batch_size: int, ranks: int = 1, rank: int = 0
    ) -> None:
        super().__init__(pairs, num_replicas=ranks, rank=rank, shuffle=False)
        if len(pairs) < batch_size * ranks:
            raise ValueError(
                f"data.pairs_per_epoch={len(pairs)} is less than one batch on every device "
                f"(data.batch_size={batch_size} on {ranks}); raise it to {batch_size * ranks} or more."
            )
        self.progress = progress
        self.draws = len(pairs) // (batch_size * ranks) * batch_size

    def __iter__(self) -> Iterator[int]:
        first = self.progress.consumed + self.rank
        return iter(range(first, first + self.draws * self.num_replicas, self.num_replicas))

    def __len__(self) -> int:
        return self.draws


def some_pairs(pairs: Sequence[NamePair], count: int | None, seed: int) -> list[NamePair]:
    """Draw `count` of some pairs with `seed`, in their order; all if None or fewer exist."""
    if count is None or count >= len(pairs):
        return list(pairs)
    drawn = np.random.default_rng((seed, _VALIDATION)).choice(len(pairs), count, replace=False)
    return [pairs[number] for number in sorted(drawn.tolist())]


def read_pairs(path: str | Path, names: Sequence[str]) -> list[NamePair]:
    """Read the pairs that a CSV file lists by name in its columns `fixed` and `moving`; others are ignored.

    Raises:
        ValueError: naming the file and line, if it is missing, empty or lacks a column, a name is unknown, a scan is
            paired with itself, or a pair is listed twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"data.pairs={path}: there is no such file. Give a CSV with the columns fixed and moving.")
    known = set(names)
    lines: dict[NamePair, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = {"fixed", "moving"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"{path} has no column {' and no column '.join(sorted(missing))} in its first line.")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                for name in (row["fixed"], row["moving"]):
                    if name is None or name.strip() not in known:
                        hint = did_you_mean(name or "", names)
                        raise ValueError(f"{where}: there is no scan {name!r} in the data set.{hint}")
                pair = (row["fixed"].strip(), row["moving"].strip())
                if pair[0] == pair[1]:
                    raise ValueError(f"{where}: {pair[0]!r} is paired with itself.")
                if pair in lines:
                    raise ValueError(f"{where} repeats the pair of line {lines[pair]}.")
                lines[pair] = rows.line_num
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV text file ({error}).") from error
    if not lines:
        raise ValueError(f"{path} lists no pairs.")
    return list(lines)


def collate(pairs: Sequence[CasePair]) -> Batch:
    """Stack pairs to a batch; labels (int64), points and alignments only if every scan of the batch has them.

    Pairs with fewer points than others get missing ones (NaN) behind their own.

    Raises:
        ValueError: if the scans have different sizes, or those of a pair different numbers of points.
    """
    fixed, moving = ([pair[role] for pair in pairs] for role in (0, 1))
    batch = Batch(
        fixed=_stack(fixed, lambda case: case.image, "sizes"),
        moving=_stack(moving, lambda case: case.image, "sizes"),
        fixed_spacing=torch.tensor([case.spacing for case in fixed]),
        moving_spacing=torch.tensor([case.spacing for case in moving]),
        fixed_name=[case.name for case in fixed],
        moving_name=[case.name for case in moving],
    )
    cases = [*fixed, *moving]
    if all(case.labels is not None for case in cases):
        batch["fixed_labels"] = _stack(fixed, lambda case: case.labels, "sizes").long()
        batch["moving_labels"] = _stack(moving, lambda case: case.labels, "sizes").long()
    alignments = [(fix.alignment, move.alignment) for fix, move in pairs]
    aligned = [between_voxels(fix, move) for fix, move in alignments if fix is not None and move is not None]
    if len(aligned) == len(pairs):
        batch["alignment"] = torch.stack(aligned)
    if all(case.points is not None for case in cases):
        most = max(len(case.points) for case in cases if case.points is not None)
        points = [_stack(pair, lambda case: case.points, "numbers of points") for pair in pairs]
        filled = torch.stack([pad(each, (0, 0, 0, most - each.shape[1]), value=torch.nan) for each in points])
        batch["fixed_points"], batch["moving_points"] = filled.unbind(1)
    return batch


def collate_images(pairs: Sequence[CasePair]) -> Batch:
    """Stack pairs to a batch without labels, for a set in which some scans have none."""
    batch = collate(pairs)
    batch.pop("fixed_labels", None)
    batch.pop("moving_labels", None)
    return batch


def _stack(cases: Sequence[Case], part: Callable[[Case], Tensor | None], what: str) -> Tensor:
    tensors = [tensor for case in cases if (tensor := part(case)) is not None]
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        names = ", ".join(case.name for case in cases)
        raise ValueError(f"The scans {names} have different {what}, {sorted(shapes)}, and cannot share a batch.")
    return torch.stack(tensors)

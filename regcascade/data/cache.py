"""Cases kept in memory, whole or rounded where memory is short."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from rich.console import Console

from regcascade.data.case import Case
from regcascade.utils.memory import GIB, available_memory
from regcascade.utils.registry import check_choice

AUTO, NONE = "auto", "none"
BYTES = {"float32": 6, "float16": 4, "uint8": 3}  # of a voxel, 2 for labels included


class Cache:
    """Cases by number.

    Args:
        store: how images are kept: `float32` as they are, `float16` (rounded by 0.00025 at most), `uint8` (by 0.002),
            or `none`, not at all.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._kept: dict[int, Case | partial[Case]] = {}

    def get(self, index: int) -> Case | None:
        """Find a case that was kept, its image as float32."""
        kept = self._kept.get(index)
        if kept is None or isinstance(kept, Case):
            return kept
        image = kept.keywords["image"]
        return kept(image=image.float().div_(255) if image.dtype == torch.uint8 else image.float())

    def keep(self, index: int, case: Case) -> Case:
        """Keep a case, and give it back as it will be from now on."""
        if self.store == "float32":
            self._kept[index] = case
        elif self.store != NONE:
            rounded = (case.image * 255).round().to(torch.uint8) if self.store == "uint8" else case.image.half()
            # To be made again: a `Case` itself holds floating-point images only.
            self._kept[index] = partial(Case, **{**vars(case), "image": rounded})
        return self.get(index) or case


def chosen_store(cache: bool | str, cases: int, size: Sequence[int]) -> str:
    """Choose how to keep images: as asked for, or by `auto` the first of float32, float16 and `none` that fits.

    Images and labels of all cases fit if they take no more than half of the memory available now
    (`available_memory`). A line says so where they do not fit as float32.

    Args:
        cache: `auto`, `float32`, `float16`, `uint8` or `none`; true is `auto`, false `none`.
        cases: how many there are.
        size: sides of each in voxels.

    Raises:
        ValueError: for another value.
    """
    if isinstance(cache, bool):
        cache = AUTO if cache else NONE
    check_choice("data.cache", cache, (AUTO, *BYTES, NONE))
    if cache != AUTO:
        return cache
    half = available_memory() / 2
    needs = {store: cases * math.prod(size) * each for store, each in BYTES.items()}
    chosen = next((store for store in ("float32", "float16") if needs[store] <= half), NONE)
    if chosen != "float32":
        listed = ", ".join(f"{needs[store] / GIB:.1f} GiB as {store}" for store in ("float32", "float16"))
        done = "they are read anew each time" if chosen == NONE else f"they are kept as {chosen}"
        Console(stderr=True).print(
            f"data.cache=auto: {cases} scans take {listed}, and half of the available memory is {half / GIB:.1f} GiB: "
            f"{done}. data.cache=uint8 takes {needs['uint8'] / GIB:.1f} GiB."
        )
    return chosen

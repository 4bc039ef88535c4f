"""Fixtures that every test may ask for."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

SmoothVolume = Callable[..., Tensor]
# ITK reads it at its first use, whichever test that is in; ANTs repeats itself on one thread only.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
RANK = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_rank_left() -> Iterator[None]:
    """No test leaves behind what a launcher says to a rank: a later training would wait for the others for ever."""
    before = {name: os.environ[name] for name in RANK if name in os.environ}
    yield
    left = {name: os.environ[name] for name in RANK if name in os.environ}
    for name in left.keys() - before.keys():
        del os.environ[name]
    assert left == before


@pytest.fixture(autouse=True, scope="session")
def threads() -> None:
    """The cores of the machine shared among the processes that test, and with the commands they start.

    OMP_NUM_THREADS overrides. Threads that wait for a core burn the time of the others.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        mine = max(1, min((os.cpu_count() or 1) // processes, 4))
        torch.set_num_threads(mine)
        os.environ["OMP_NUM_THREADS"] = str(mine)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of scans and weights that is no part of the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("REGCASCADE_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip(f"there are no scans and weights at {folder}; REGCASCADE_SHARED names another place")
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turns shape checking off: a user has none, and must still get our own message."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def smooth() -> SmoothVolume:
    """Makes smooth random volumes in float64, each channel between -1 and 1 and touching one of them."""

    def make(size: tuple[int, int, int], batch: int = 2, channels: int = 1, seed: int = 0) -> Tensor:
        noise = np.random.default_rng(seed).standard_normal((batch, channels, *size))
        volume = gaussian_filter(noise, sigma=(0, 0, 2.5, 2.5, 2.5), mode="wrap")
        peak = np.abs(volume).max(axis=(2, 3, 4), keepdims=True)
        return torch.from_numpy(volume / peak)

    return make


@pytest.fixture(scope="session")
def smooth_flow(smooth: SmoothVolume) -> SmoothVolume:
    """Makes smooth random flows in float64 of which no component exceeds `amplitude` voxels."""

    def make(size: tuple[int, int, int], amplitude: float = 2.0, batch: int = 2, seed: int = 100) -> Tensor:
        return amplitude * smooth(size, batch, 3, seed)

    return make

"""Random variables of the released graphs, by name and shape."""

import numpy as np
import pytest

VOXELMORPH = {
    "conv1": (2, 1), "conv2": (1, 2), "conv3": (2, 2), "conv4": (2, 2), "decode4": (2, 2), "decode3": (4, 2),
    "decode2": (4, 2), "decode1": (3, 2), "decode1_1": (2, 2), "decode0": (2, 1), "decode0_1": (1, 1), "flow": (1, 3),
}  # fmt: skip  # in and out, in multiples of the width but for the pair and the flow


class Variables:
    """Makes variables as large as keeps the size of what passes through."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.made = {}

    def add(self, name, *shape, scale=1.0):
        if len(shape) == 1:
            self.made[name] = self.random.uniform(-0.3, 0.3, shape).astype(np.float32)
        else:
            up = "deconv" in name or "upsamp" in name  # each voxel sees an eighth of the taps; (out, in) at the end
            taps = np.prod(shape[:3]) * shape[4] / 8 if up else np.prod(shape[:4])
            self.made[name] = (scale * self.random.uniform(-1, 1, shape) * np.sqrt(6 / taps)).astype(np.float32)

    def encoder(self, scope, width):
        for k in range(6):
            before, now = (2 if k == 0 else width * 2 ** (k - 1)), width * 2**k
            for name, channels in [(f"conv{k + 1}", before), (f"conv{k + 1}_1", now)][: 2 if k > 1 else 1]:
                self.add(f"{scope}/{name}/W", 3, 3, 3, channels, now)
                self.add(f"{scope}/{name}/b", now)

    def affine(self, last=(2, 1, 1), scope="gaffdfrm/affine_stem"):
        self.encoder(scope, 16)
        self.add(f"{scope}/conv7_W/W", *last, 512, 9, scale=0.1)
        self.add(f"{scope}/conv7_b/W", *last, 512, 3)

    def vtn(self, k, width=2, scope="gaffdfrm"):
        scope = f"{scope}/deform_stem_{k}"
        self.encoder(scope, width)
        channels = 32 * width
        for level in (5, 4, 3, 2, 1):
            skip = width * 2 ** (level - 1)
            self.add(f"{scope}/pred{level + 1}/W", 3, 3, 3, channels, 3)
            self.add(f"{scope}/pred{level + 1}/b", 3)
            self.add(f"{scope}/upsamp{level + 1}to{level}/W", 4, 4, 4, 3, 3)
            self.add(f"{scope}/deconv{level}/W", 4, 4, 4, skip, channels)
            channels = 2 * skip + 3
        self.add(f"{scope}/upsamp1to0/W", 4, 4, 4, 3, channels, scale=0.1)

    def voxelmorph(self, k, width=16, scope="gaffdfrm"):
        scope = f"{scope}/deform_stem_{k}"
        for name, (before, now) in VOXELMORPH.items():
            channels = 2 if name == "conv1" else before * width + 2 * (name == "decode0")
            self.add(f"{scope}/{name}/W", 3, 3, 3, channels, 3 if name == "flow" else now * width)
            self.add(f"{scope}/{name}/b", 3 if name == "flow" else now * width)


@pytest.fixture
def variables():
    return Variables(seed=0)

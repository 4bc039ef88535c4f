"""Warping and composing at 128^3 against MONAI's Warp, in one run: `python benchmarks/warp.py`."""

from collections.abc import Callable

import torch
from comparison import Row, interleaved, options, report, timed
from monai.networks.blocks import Warp
from torch import Tensor

from regcascade.geometry.warp import compose, resize_flow, warp

SIZE = (128, 128, 128)
LIMITS = {"warp": 0.5, "compose": 0.6}


def main() -> None:
    """Time each operation, forward alone and with the gradient of every flow."""
    given = options(__doc__, repeats=15)
    torch.manual_seed(0)
    image, first, then = torch.rand(1, 1, *SIZE), _flow(), _flow()
    monai_warp = Warp()
    pairs: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]] = {
        "warp": (lambda flow: warp(image, flow), lambda flow: monai_warp(image, flow), [then]),
        "compose": (compose, lambda a, b: b + monai_warp(a, b), [first, then]),
    }
    rows = []
    for name, (ours, theirs, flows) in pairs.items():
        torch.testing.assert_close(ours(*flows), theirs(*flows), atol=1e-3, rtol=0)
        for what, run in {"forward": _forward, "forward and backward": _forward_and_backward}.items():
            candidates = {"regcascade": timed(run(ours, flows)), "MONAI": timed(run(theirs, flows))}
            rows.append(Row(f"{name}, {what}", interleaved(candidates, given.repeats), LIMITS[name]))
    report("warp", rows, given)


def _flow() -> Tensor:
    """A smooth flow of up to some six voxels, as registration has them."""
    coarse = 2 * torch.randn(1, 3, *(side // 4 for side in SIZE))
    smooth = torch.nn.functional.avg_pool3d(coarse, 9, stride=1, padding=4)
    return resize_flow(4 * smooth, SIZE, level=2)


def _forward(operation: Callable[..., Tensor], flows: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            operation(*flows)

    return run


def _forward_and_backward(operation: Callable[..., Tensor], flows: list[Tensor]) -> Callable[[], None]:
    leaves = [flow.clone().requires_grad_() for flow in flows]

    def run() -> None:
        result = operation(*leaves)
        torch.autograd.grad(result, leaves, grad_outputs=torch.ones_like(result))

    return run


if __name__ == "__main__":
    main()

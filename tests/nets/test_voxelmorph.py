"""VoxelMorph: its options, and its published weights on real scans."""

import numpy as np
import pytest
import torch

from regcascade import build
from regcascade.nets import build_net
from regcascade.spatial import warp_labels


@pytest.mark.parametrize("options", [{"width_multiplier": 2}, {"convolutions": 2}, {"passes": 2}])
def test_table_4_variants_run(options):
    net = build_net({"name": "voxelmorph", **options}, levels=(0, 1, 2))
    flows = net(*torch.rand(2, 1, 1, 17, 16, 16))
    assert [flow.shape[2:] for flow in flows.values()] == [(17, 16, 16), (9, 8, 8), (5, 4, 4)]
    sum(flow.square().sum() for flow in flows.values()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("option", ["width_multiplier", "convolutions", "passes"])
def test_counts_below_one_are_refused(option):
    with pytest.raises(ValueError, match=f"{option}=0"):
        build_net({"name": "voxelmorph", option: 0})


def test_the_slope_reaches_every_activation():
    with torch.device("meta"):
        net = build_net({"name": "voxelmorph", "negative_slope": 0.2, "convolutions": 2, "passes": 2})
    slopes = [module.negative_slope for module in net.modules() if isinstance(module, torch.nn.LeakyReLU)]
    assert len(slopes) == 44 and set(slopes) == {0.2}


def load_published_weights(net, file):
    """Copies Keras weights in the order of the layers: TensorFlow lays a kernel out as (x, y, z, in, out)."""
    h5py = pytest.importorskip("h5py", reason="reading Keras weights needs h5py")
    layers = [
        module for part in (net.passes, net.heads) for module in part.modules() if isinstance(module, torch.nn.Conv3d)
    ]
    with h5py.File(file) as weights, torch.no_grad():
        groups = weights["model_weights"]
        names = sorted((n for n in groups if n.startswith("conv3d_")), key=lambda n: int(n.split("_")[1]))
        for layer, name in zip(layers, [*names, "flow"], strict=True):
            (group,) = groups[name].values()
            kernel = torch.from_numpy(group["kernel:0"][:]).permute(4, 3, 0, 1, 2)
            assert kernel.shape == layer.weight.shape
            layer.weight.copy_(kernel)
            layer.bias.copy_(torch.from_numpy(group["bias:0"][:]))


def mean_dice(a, b, labels):
    return np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in labels])


@pytest.mark.shared
@pytest.mark.parametrize(
    "moving, fixed, dice, correlation",
    [
        ("subject_1", "vxm_test_scan", (0.522, 0.726, 0.724), (0.870, 0.984, 0.991)),
        ("vxm_test_scan", "subject_1", (0.522, 0.752, 0.765), (0.870, None, 0.987)),
    ],
)
def test_published_weights_register_real_brains(shared, moving, fixed, dice, correlation):
    """The numbers were measured with another implementation of the network."""
    folder = shared / "data/brain_t1_pair"
    scan = np.load(folder / "vxm_test_scan.npz")
    subject = [np.load(folder / f"subject_1_{kind}.npz")["vol_data"] for kind in ("vol", "seg")]
    scans = {"vxm_test_scan": (scan["vol"], scan["seg"]), "subject_1": tuple(subject)}
    (moving_image, moving_labels), (fixed_image, fixed_labels) = scans[moving], scans[fixed]
    labels = np.load(folder / "vxm_labels.npz")["labels"]

    network = {"name": "voxelmorph", "negative_slope": 0.2, "input_order": "moving_first"}
    model = build(network, "cr", n=1).eval()  # n = 1, so that flows are not scaled
    load_published_weights(model.nets[0], shared / "data/weights/cvpr2018_vm2_l2.h5")

    def tensor(array, dtype):
        return torch.from_numpy(array)[None, None].to(dtype)

    with torch.inference_mode():
        images = tensor(moving_image, torch.float32), tensor(fixed_image, torch.float32)
        registration = model(*images, r=2)
        moved = [moving_labels] + [
            warp_labels(tensor(moving_labels, torch.int64), stage.total)[0, 0].numpy() for stage in registration.stages
        ]
    seen = [mean_dice(result, fixed_labels, labels) for result in moved]
    np.testing.assert_allclose(seen, dice, atol=0.002)
    images = [moving_image] + [stage.moved[0, 0].numpy() for stage in registration.stages]
    for image, expected in zip(images, correlation, strict=True):
        if expected is not None:
            seen = np.corrcoef(image.ravel(), fixed_image.ravel())[0, 1]
            assert seen == pytest.approx(expected, abs=0.002)

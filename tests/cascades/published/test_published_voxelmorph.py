"""VoxelMorph's Keras files, against the network in NumPy, and on real brains."""

import json

import h5py
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from tensorflow_graphs import convolved, doubled, leaky

import regcascade as rc
from regcascade.cascades.checkpoint import read
from regcascade.cascades.published import read_voxelmorph
from regcascade.cli.main import main
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.geometry.warp import warp_labels

# In the order of the model; Keras numbers them from where the program was, so that names do not sort as they run.
NAMES = [*(f"conv3d_{k}" for k in range(7, 18)), "flow"]
CHANNELS = [
    (2, 16), (16, 32), (32, 32), (32, 32), (32, 32), (64, 32), (64, 32), (48, 32), (32, 32), (34, 16), (16, 16), (16, 3)
]  # fmt: skip
SIZE = (16, 32, 48)


@pytest.fixture
def layers():
    random = np.random.default_rng(0)
    kernels = [random.uniform(-1, 1, (3, 3, 3, a, b)) * np.sqrt(6 / (27 * a)) for a, b in CHANNELS]
    biases = [random.uniform(-0.3, 0.3, b) for _, b in CHANNELS]
    return {
        name: [k.astype(np.float32), b.astype(np.float32)] for name, k, b in zip(NAMES, kernels, biases, strict=True)
    }


def write_keras(file, layers, slope=0.2, whole=True):
    """As Keras lays a model out: a group for each layer, the order in an attribute."""
    with h5py.File(file, "w") as content:
        group = content.create_group("model_weights") if whole else content
        group.attrs["layer_names"] = np.array([b"input_1", *(name.encode() for name in layers)])
        group.create_group("input_1")
        for name, (kernel, bias) in layers.items():
            group.create_dataset(f"{name}/{name}_1/kernel:0", data=kernel)
            group.create_dataset(f"{name}/{name}_1/bias:0", data=bias)
        if whole:
            activation = {"class_name": "LeakyReLU", "config": {"alpha": float(np.float32(slope))}}
            content.attrs["model_config"] = json.dumps({"config": {"layers": [{"class_name": "Conv3D"}, activation]}})


def network(layers, moving, fixed, slope):
    """The flow `(X, Y, Z, 3)`, by loops."""

    def conv(x, k, stride=1):
        kernel, bias = (np.float64(array) for array in layers[NAMES[k]])
        return convolved(x, kernel, bias, stride)

    def act(x, k, stride=1):
        return leaky(conv(x, k, stride), slope)

    maps = [np.stack([moving, fixed], -1)]
    for k in range(4):
        maps.append(act(maps[-1], k, 2))
    x = act(maps[4], 4)
    for k, skip in ((5, 3), (6, 2), (7, 1)):
        x = act(np.concatenate([doubled(x), maps[skip]], -1), k)
    x = act(np.concatenate([doubled(act(x, 8)), maps[0]], -1), 9)
    return conv(act(x, 10), 11)


@pytest.mark.parametrize(("slope", "whole"), [(0.3, True), (0.2, False)])
def test_an_imported_file_computes_what_the_network_does(layers, tmp_path, slope, whole):
    file, out = tmp_path / "published.h5", tmp_path / "imported.ckpt"
    write_keras(file, layers, slope, whole)
    main(["import", "voxelmorph", str(file), "--out", str(out), "--label-names", "17=hippocampus"])
    moving, fixed = np.random.default_rng(1).uniform(size=(2, *SIZE))
    with torch.no_grad():
        flow = rc.load(out)(*(torch.from_numpy(v).float()[None, None] for v in (moving, fixed))).flow
    expected = network(layers, moving, fixed, slope)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(flow[0].permute(1, 2, 3, 0).numpy(), expected, atol=1e-4)


def test_the_checkpoint_says_how_its_images_were_made(layers, tmp_path, capsys):
    file, out = tmp_path / "published.h5", tmp_path / "imported.ckpt"
    write_keras(file, layers)
    main(["import", "voxelmorph", str(file), "--out", str(out), "--window", "255", "127.5", "--size", "96", "80", "96"])
    description = read(out).description
    assert description["preprocessing"] == {
        "size": [96, 80, 96], "fit": "crop_pad", "pad": 0.0, "intensity": "window", "percentiles": [1.0, 99.0],
        "window": [255.0, 127.5], "orientation": "LIA", "spacing": [1.0, 1.0, 1.0],
    }  # fmt: skip
    assert "model.negative_slope=0.2 model.input_order=moving_first n=1" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers.pop("conv3d_9"), "has 11 convolutions, and VoxelMorph of RCN and DR-Net 12"),
        (lambda layers: layers["flow"].__setitem__(1, np.zeros(4)), r"flow/bias has the shape \[4\].*\[3\] there"),
        (lambda layers: layers["conv3d_7"].__setitem__(0, np.zeros((3, 3, 3, 2, 8))), "8 maps.*a multiple of 16"),
        (lambda layers: layers["conv3d_8"][0].fill(np.inf), "conv3d_8/kernel is not made of finite numbers"),
    ],
)
def test_other_networks_are_refused(layers, tmp_path, change, message):
    file = tmp_path / "published.h5"
    change(layers)
    write_keras(file, layers)
    with pytest.raises(ValueError, match=message) as error:
        read_voxelmorph(file)
    assert str(file) in str(error.value)


def test_files_that_are_not_keras_s_are_refused(tmp_path):
    file = tmp_path / "published.h5"
    file.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read_voxelmorph(file)
    with h5py.File(file, "w") as content:
        content["volume"] = np.zeros(3)
    with pytest.raises(ValueError, match="lists no layer_names"):
        read_voxelmorph(file)
    with h5py.File(file, "w") as content:
        content.attrs["layer_names"] = np.array([b"conv3d_1"])
    with pytest.raises(ValueError, match="lists the layer conv3d_1 and does not hold it"):
        read_voxelmorph(file)


def mean_dice(a, b, labels):
    return np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in labels])


@pytest.fixture(scope="module")
def imported(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "voxelmorph.ckpt"
    main(["import", "voxelmorph", str(shared / "data/weights/cvpr2018_vm2_l2.h5"), "--out", str(out)])
    return read(out)


@pytest.mark.shared
@pytest.mark.parametrize(
    "moving, fixed, dice, correlation",
    [
        ("subject_1", "vxm_test_scan", (0.522, 0.726, 0.724), (0.870, 0.984, 0.991)),
        ("vxm_test_scan", "subject_1", (0.522, 0.752, 0.765), (0.870, None, 0.987)),
    ],
)
def test_published_weights_register_real_brains(shared, imported, moving, fixed, dice, correlation):
    """The numbers were measured with another implementation of the network."""
    folder = shared / "data/brain_t1_pair"
    scan = np.load(folder / "vxm_test_scan.npz")
    subject = [np.load(folder / f"subject_1_{kind}.npz")["vol_data"] for kind in ("vol", "seg")]
    scans = {"vxm_test_scan": (scan["vol"], scan["seg"]), "subject_1": tuple(subject)}
    (moving_image, moving_labels), (fixed_image, fixed_labels) = scans[moving], scans[fixed]
    labels = np.load(folder / "vxm_labels.npz")["labels"]
    said = dict(imported.description["preprocessing"])
    said.pop("orientation"), said.pop("spacing")
    preprocessing = Preprocessing(**said)

    def prepared(image):
        scan = MetaTensor(torch.from_numpy(image)[None].float())
        return preprocessing.apply(scan, None, None)[0].as_tensor()[None]

    with torch.inference_mode():
        registration = imported.build()(prepared(moving_image), prepared(fixed_image), r=2)
        integers = torch.from_numpy(moving_labels)[None, None].to(torch.int64)
        moved = [moving_labels]
        moved += [warp_labels(integers, stage.total)[0, 0].numpy() for stage in registration.stages]
    seen = [mean_dice(result, fixed_labels, labels) for result in moved]
    np.testing.assert_allclose(seen, dice, atol=0.002)
    images = [moving_image] + [stage.moved[0, 0].numpy() for stage in registration.stages]
    for image, expected in zip(images, correlation, strict=True):
        if expected is not None:
            seen = np.corrcoef(image.ravel(), fixed_image.ravel())[0, 1]
            assert seen == pytest.approx(expected, abs=0.002)

"""The sizes that pin the architectures."""

import json
from collections import Counter

import pytest
import torch

from regcascade import build
from regcascade.networks import build_net
from regcascade.networks.affine import AffineNetwork

AFFINE = 14_166_288
COUNTS = {
    "voxelmorph": 300_547,
    "vtn": 28_252_203,
    "drnet": 22_270_715,
    "pyramid": 206_113,
    "monai_voxelmorph": 244_323,
}
# DR-Net's column "Para. (Mb)", 12 bytes a parameter, affine network included: (n, MiB).
PRINTED = [
    ("voxelmorph", 1, 165.6), ("voxelmorph", 2, 169.0), ("voxelmorph", 3, 172.4),
    ("vtn", 1, 485.4), ("vtn", 2, 808.8), ("vtn", 3, 1132.1),
]  # fmt: skip


@pytest.fixture(autouse=True)
def without_memory():
    with torch.device("meta"):
        yield


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def mib(module):
    return 12 * count(module) / 2**20


def shapes(module):
    return Counter(tuple(parameter.shape) for parameter in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_the_stated_parameters(name):
    assert count(build_net(name)) == COUNTS[name]


def test_drnet_is_within_one_percent_of_the_paper():
    assert count(build_net("drnet")) == pytest.approx(22.3e6, rel=0.01)


def test_the_affine_network_has_the_paper_s_parameters():
    assert count(AffineNetwork((128, 128, 128))) == AFFINE
    assert pytest.approx(162.1, abs=0.05) == 12 * AFFINE / 2**20


@pytest.mark.parametrize("name, n, printed", PRINTED)
def test_cascades_have_the_printed_size(name, n, printed):
    model = build(name, "cr", n=n, affine="learned", size=(128, 128, 128))
    assert mib(model) == pytest.approx(printed, abs=0.05)


@pytest.mark.parametrize("cascade, n, printed", [("cr", 1, 417), ("mcr", 2, 674), ("mcr", 3, 931)])
def test_drnet_cascades_have_about_the_printed_size(cascade, n, printed):
    model = build("drnet", cascade, n=n, affine="learned", size=(128, 128, 128))
    assert mib(model) == pytest.approx(printed, rel=0.01)


def test_frozen_parameters_count_too():
    learned, frozen = (build("voxelmorph", affine=affine, size=(128, 128, 128)) for affine in ("learned", "frozen"))
    assert count(learned) == count(frozen)


@pytest.mark.parametrize("factor", [2, 3])
def test_voxelmorph_widths_multiply(factor):
    def conv(a, b):
        return 27 * a * b + b

    narrow, wide = 16 * factor, 32 * factor
    expected = (
        conv(2, narrow) + conv(narrow, wide) + 3 * conv(wide, wide) + 2 * conv(2 * wide, wide)
        + conv(wide + narrow, wide) + conv(wide, wide) + conv(wide + 2, narrow) + conv(narrow, narrow)
        + conv(narrow, 3)
    )  # fmt: skip
    assert count(build_net({"name": "voxelmorph", "width_multiplier": factor})) == expected


def test_voxelmorph_double_adds_a_convolution_to_each():
    single, double = (build_net({"name": "voxelmorph", "convolutions": k}) for k in (1, 2))
    added = shapes(double) - shapes(single)
    # Of the eleven convolutions before the head three give 16 maps and eight 32; biases beside them.
    assert added == Counter({(16, 16, 3, 3, 3): 3, (16,): 3, (32, 32, 3, 3, 3): 8, (32,): 8})


def test_voxelmorph_xx2_runs_a_second_network_on_the_maps_of_the_first():
    once, twice = (build_net({"name": "voxelmorph", "passes": k}) for k in (1, 2))
    # 16 maps come in where the pair did: at the first convolution, and at the last concatenation.
    assert count(twice) - count(once) == count(once) - (27 * 16 * 3 + 3) + 27 * 14 * (16 + 16)


@pytest.mark.shared
def test_shapes_are_those_of_the_released_graphs(shared):
    graphs = json.loads((shared / "data/weights/rcn_tf_variables.json").read_text())
    for key, name, n in [
        ("VTN_n1_rep1", "vtn", 1),
        ("VoxelMorph_n1_rep1", "voxelmorph", 1),
        ("VTN_n2_rep2", "vtn", 2),
    ]:
        theirs = {
            variable.split("/", 1)[1]: tuple(torch.zeros(shape).permute(4, 3, 0, 1, 2).shape)
            if len(shape) == 5
            else tuple(shape)
            for variable, shape in graphs[key].items()
        }
        model = build(name, "cr", n=n, affine="learned", size=(128, 128, 128))
        stems = {"affine_stem": model.affine} | {f"deform_stem_{k}": net for k, net in enumerate(model.nets)}
        for stem, module in stems.items():
            expected = Counter(shape for variable, shape in theirs.items() if variable.startswith(f"{stem}/"))
            assert shapes(module) == expected, (key, stem)
        assert shapes(model) == Counter(theirs.values()), key

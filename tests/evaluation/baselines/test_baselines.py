"""What every method keeps: our convention of a flow, and clear words where it cannot run."""

import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter

from regcascade.evaluation.baselines import METHODS, Method, RegistrationFailed, build_method
from regcascade.evaluation.baselines.base import flow_of_millimetres
from regcascade.utils.registry import import_user_modules

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf/method"
SIZE, SPACING = (32, 40, 26), (1.0, 1.5, 2.0)
FAST = {
    "ants_syn": {"metric": "mattes", "sampling": 32, "iterations": [40, 20, 0], "gradient_step": 0.2},
    "elastix_bspline": {"resolutions": 1, "iterations": 100, "grid_spacing_mm": 20.0, "bending": 0.0},
}
PACKAGES = {  # modules and distributions
    "ants_syn": ("ants", "antspyx"),
    "elastix_bspline": ("itk", "itk-elastix"),
    "convexadam": ("convexAdam", "convexAdam"),
}


def made(name: str) -> Method:
    """The method, quick; a test skips where its package is not there."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name][0], reason=f"the extra baselines is not installed ({PACKAGES[name][1]})")
    return build_method({"name": name, **FAST.get(name, {})})


def volume(shift=(0, 0, 0)) -> torch.Tensor:
    """Smooth noise in a box, with its content moved by whole voxels."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(SIZE), 2)
    box = np.zeros(SIZE)
    box[6:-6, 6:-6, 6:-6] = 1
    content = gaussian_filter(box, 1) * (0.5 + (noise - noise.min()) / np.ptp(noise))
    return torch.from_numpy(np.roll(content, shift, (0, 1, 2)) / content.max()).float()[None, None]


def batch_of(fixed: torch.Tensor, moving: torch.Tensor) -> dict:
    count = len(fixed)
    return {
        "fixed": fixed, "moving": moving,
        "fixed_spacing": torch.tensor([SPACING] * count), "moving_spacing": torch.tensor([SPACING] * count),
        "fixed_name": ["f"] * count, "moving_name": ["m"] * count,
    }  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", [name for name in METHODS.names() if name != "identity"])
def test_convention_a_translation_along_each_axis_comes_back_as_its_flow(name, axis):
    """What lies at p in the fixed scan lies at p + 3 in the moving one, so that the flow is 3 there."""
    shift = [3 if each == axis else 0 for each in range(3)]
    batch = batch_of(volume(), volume(shift))
    with torch.inference_mode():  # as in an evaluation
        registration = made(name).register(batch)
    assert registration.flow.shape == (1, 3, *SIZE)
    assert registration.flow.dtype == torch.float32
    middle = registration.flow[0, :, 9:-9, 9:-9, 9:-9].mean(dim=(1, 2, 3))
    torch.testing.assert_close(middle, torch.tensor(shift).float(), rtol=0, atol=0.5)
    before = (batch["moving"] - batch["fixed"]).square().mean()
    assert (registration.moved - batch["fixed"]).square().mean() < 0.2 * before


def test_identity_moves_nothing():
    batch = batch_of(volume(), volume((3, 0, 0)))
    registration = build_method("identity").register(batch)
    assert not registration.flow.any()
    torch.testing.assert_close(registration.moved, batch["moving"])


@pytest.mark.parametrize("name", ["ants_syn", "elastix_bspline", "affine"])
def test_on_one_thread_the_same_again_is_the_same(name):
    method, batch = made(name), batch_of(volume(), volume((2, -1, 1)))
    assert torch.equal(method.register(batch).flow, method.register(batch).flow)


def test_volumes_that_fill_no_whole_cells_are_not_stretched():
    """ConvexAdam's field over 26 voxels at 6 a cell would be that of 24, were they not continued to 30."""
    flow = made("convexadam").register(batch_of(volume(), volume((0, 0, 3)))).flow
    near_end, near_start = (flow[0, 2, 10:-10, 10:-10, z].mean() for z in (slice(-9, -7), slice(7, 9)))
    assert abs(near_end - 3) < 0.5 and abs(near_start - 3) < 0.5


def test_pairs_of_a_batch_are_registered_one_by_one():
    batch = batch_of(volume().repeat(2, 1, 1, 1, 1), torch.cat([volume((2, 0, 0)), volume((0, 2, 0))]))
    flow = build_method("affine").register(batch).flow
    middle = flow[:, :, 9:-9, 9:-9, 9:-9].mean(dim=(2, 3, 4))
    torch.testing.assert_close(middle, torch.tensor([[2.0, 0, 0], [0, 2.0, 0]]), rtol=0, atol=0.2)


def test_millimetres_become_voxels_of_either_grid():
    displacement = np.zeros((3, 4, 5, 3))
    displacement[..., 0] = 6.0
    same = flow_of_millimetres(displacement, (2.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    assert (same[0] == 3).all() and not same[1:].any()
    other = flow_of_millimetres(displacement, (2.0, 1.0, 1.0), (1.0, 1.0, 2.0))
    index = torch.arange(3.0)[:, None, None]
    assert torch.equal(other[0], (2 * index + 6 - index).expand(3, 4, 5))  # (p s_f + d) / s_m - p
    assert torch.equal(other[2], -torch.arange(5.0).expand(3, 4, 5) / 2)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(name, monkeypatch):
    module, package = PACKAGES[name]
    monkeypatch.setitem(sys.modules, module, None)
    said = re.escape("pip install -c constraints.txt -e '.[baselines]'")
    with pytest.raises(ValueError, match=rf"{package}, which is not installed .*: {said}"):
        build_method(name)


def test_options_of_networks_are_refused():
    for wrong in ((2, "stage"), (1, "chain")):
        with pytest.raises(ValueError, match="method=identity applies no networks"):
            build_method("identity").about(*wrong)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ants_syn", {"metric": "ncc"}),
        ("ants_syn", {"affine_metric": "mi"}),
        ("ants_syn", {"affine_iterations": [100]}),
        ("ants_syn", {"iterations": []}),
        ("elastix_bspline", {"grid_spacing_mm": 0.0}),
        ("elastix_bspline", {"iterations": 0}),
        ("elastix_bspline", {"bending": -1.0}),
        ("convexadam", {"selected_smooth": 4}),
        ("convexadam", {"grid_sp": 0}),
    ],
)
def test_options_that_cannot_be_are_refused(name, options):
    (option,) = options
    with pytest.raises(ValueError, match=option):
        build_method({"name": name, **options})


def test_unknown_methods_and_options_are_refused():
    with pytest.raises(ValueError, match=r"Unknown method 'ants'.*ants_syn"):
        build_method("ants")
    with pytest.raises(ValueError, match=r"method 'identity' has no option 'threads'"):
        build_method({"name": "identity", "threads": 2})


def test_every_method_has_a_config_with_the_defaults_of_its_signature():
    assert {path.stem for path in CONF.glob("*.yaml")} == {"network", *METHODS.names()}
    for name in METHODS.names():
        signature = inspect.signature(METHODS.get(name)).parameters
        plain = {key: each.default for key, each in signature.items()}
        as_in_yaml = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
        assert OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")) == {"name": name, **as_in_yaml}


def test_a_summary_says_the_options_and_the_versions():
    about = build_method("affine").about()
    assert about["method"] == {"name": "affine"}
    assert re.match(r"\d+\.", about["packages"]["SimpleITK"])


def test_a_method_of_ones_own_joins_and_its_errors_are_failures(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from regcascade.evaluation.baselines import METHODS, Method\n\n\n"
        "@METHODS.register('of_mine')\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Method):\n"
        "    word: str = 'no'\n\n"
        "    def flow(self, pair):\n"
        "        raise OSError(f'{self.word}\\nresult')\n"
    )
    import_user_modules([str(tmp_path / "mine.py")])
    try:
        method = build_method({"name": "of_mine", "word": "never a"})
        assert method.about()["method"] == {"name": "of_mine", "word": "never a"}
        with pytest.raises(RegistrationFailed, match=r"^OSError: never a result$"):
            method.register(batch_of(volume(), volume()))
    finally:
        METHODS._classes.pop("of_mine")

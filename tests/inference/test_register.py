"""Registering in native space: where a known flow takes places of the world, whatever the grids of the scans."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from grids import LPS, SIZE, oblique, write_scan
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter, map_coordinates

import regcascade as rc
from regcascade.cascades.strategies.cr import CR
from regcascade.data.datasets.scans import Scans
from regcascade.data.io.scan_lists import Source
from regcascade.data.preprocessing.recipes import Generic
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.geometry.grid import voxels_of
from regcascade.geometry.warp import warp
from regcascade.inference import RegisterOptions, ScanFiles, pipeline, register
from regcascade.inference.model import Trained, recipe_of
from regcascade.inference.scans import open_scan
from regcascade.registration import Stage

SHIFT = np.array([1.5, -0.75, 2.25])  # voxels of the networks' grid
SHAPES = (23, 19, 26), (18, 25, 21)
GRIDS = {
    "RAS to LPS": (oblique(SHAPES[0], (1.0, 1.2, 0.9), 0), LPS @ oblique(SHAPES[1], (1.2, 0.9, 1.1), 0)),
    "oblique, anisotropic": (oblique(SHAPES[0], (0.9, 1.0, 2.0), 20), oblique(SHAPES[1], (1.5, 1.0, 1.2), -11)),
    "flipped, permuted": (
        oblique(SHAPES[0], (1.0, -1.2, 0.9), 0),
        oblique(SHAPES[1], (1.2, 0.9, 1.1), 0) @ np.eye(4)[[1, 2, 0, 3]],
    ),
}


class Constant(CR):
    """A cascade whose flow is known."""

    def step(self, k, moving, fixed, before):
        flow = torch.from_numpy(SHIFT).float().view(1, 3, 1, 1, 1).expand(1, 3, *moving.shape[2:]).contiguous()
        return Stage(flow=flow, totals={0: flow}, moved=warp(moving, flow))


def constant(fit):
    torch.manual_seed(0)
    recipe = Generic(size=SIZE, fit=fit, orientation="LPS", percentiles=(0.0, 100.0))
    return Trained(Constant({"name": "pyramid", "width": 4}, 1), recipe, {})


@pytest.fixture(params=GRIDS)
def scans(request, tmp_path):
    paths = []
    for index, (shape, affine) in enumerate(zip(SHAPES, GRIDS[request.param], strict=True)):
        voxels = gaussian_filter(np.random.default_rng(index).random(shape), 2)
        voxels = ((voxels - voxels.min()) / np.ptp(voxels) * 900 + 50).astype(np.int16)
        paths.append(write_scan(tmp_path / f"{index}.nii.gz", voxels, affine))
    return paths


def turned_affine(path):
    """The affine and shape of a scan once its axes lead to LPS, by nibabel."""
    image = nibabel.load(path)
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS"))
    image = image.as_reoriented(change)
    return image.affine, np.array(image.shape)


def stretched(path):
    """From voxels of the networks' grid to the world, of a scan that was stretched to it."""
    affine, shape = turned_affine(path)
    scale = np.eye(4)
    scale[:3, :3] = np.diag(shape / np.array(SIZE))
    scale[:3, 3] = 0.5 * shape / np.array(SIZE) - 0.5
    return affine @ scale


def test_a_known_flow_takes_places_where_stretching_by_hand_does(scans):
    result = register(*scans, constant("resample"))
    fixed, moving = map(stretched, scans)
    places = np.random.default_rng(0).uniform(-6, 6, (50, 3))
    voxels = (places - fixed[:3, 3]) @ np.linalg.inv(fixed[:3, :3]).T
    wanted = (voxels + SHIFT) @ moving[:3, :3].T + moving[:3, 3]
    assert_allclose(result.transform.points_to_moving(places), wanted, atol=1e-3)
    assert_allclose(result.transform.points_to_fixed(wanted), places, atol=1e-2)


@pytest.mark.parametrize("fit", ["resample", "crop_pad"])
def test_where_headers_put_them_a_known_flow_is_one_translation(scans, fit):
    result = register(*scans, constant(fit), RegisterOptions(initial="none"))
    affine = stretched(scans[0]) if fit == "resample" else turned_affine(scans[0])[0]
    places = np.random.default_rng(0).uniform(-6, 6, (50, 3))
    assert_allclose(result.transform.points_to_moving(places), places + affine[:3, :3] @ SHIFT, atol=1e-3)


def test_the_moved_scan_is_what_scipy_samples_there(scans):
    result = register(*scans, constant("resample"), RegisterOptions(fill=-7.0))
    fixed, moving = map(stretched, scans)
    native = nibabel.load(scans[0])
    grid = np.stack(np.meshgrid(*map(np.arange, native.shape), indexing="ij"), -1)
    places = grid @ native.affine[:3, :3].T + native.affine[:3, 3]
    there = ((places - fixed[:3, 3]) @ np.linalg.inv(fixed[:3, :3]).T + SHIFT) @ moving[:3, :3].T + moving[:3, 3]
    source = nibabel.load(scans[1])
    inverse = np.linalg.inv(source.affine)
    voxels = np.moveaxis(there @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    wanted = map_coordinates(source.get_fdata(), voxels, order=1, mode="nearest")
    sides = np.array(source.shape).reshape(3, 1, 1, 1)
    inside = ((voxels > -0.45) & (voxels < sides - 0.55)).all(0)
    outside = ((voxels < -0.55) | (voxels > sides - 0.45)).any(0)
    moved = voxels_of(result.moved)
    assert result.moved.GetPixelID() == sitk.sitkInt16 and inside.mean() > 0.5 and outside.any()
    assert np.abs(moved[inside] - wanted[inside]).max() <= 0.51
    assert (moved[outside] == -7).all()


def test_a_scan_registered_to_itself_stays_where_it_is(phantoms, checkpoint):
    scan = phantoms / "moving.nii.gz"
    result = rc.register(scan, scan, rc.load(checkpoint))
    assert result.report["displacement_mm"]["max"] < 0.1 and result.report["cc_after"] > 0.999
    assert result.report["folding_percent"] == 0 and result.report["initial"] == "trained"


def files(folder, role):
    return ScanFiles(folder / f"{role}.nii.gz", folder / f"{role}_labels.nii.gz", folder / f"{role}_points.csv")


def test_a_phantom_at_two_geometries_is_registered(phantoms, checkpoint):
    given = files(phantoms, "fixed"), files(phantoms, "moving")
    start = register(*given, checkpoint, RegisterOptions(initial="none"))
    options = RegisterOptions(initial="none", refine=80)
    result = register(*given, checkpoint, options)
    before, after = (result.report["landmark_distance_mm"][when] for when in ("initial", "after"))
    assert before == pytest.approx(start.report["landmark_distance_mm"]["after"], abs=0.5)
    assert after < 0.6 * before
    assert result.report["dice_after"]["mean"] > result.report["dice_initial"]["mean"] + 0.05
    assert result.report["objective_after"] < result.report["objective_before"]
    # The same by the transform alone: moving landmarks come to the fixed ones.
    distance = np.linalg.norm(result.moved_points - result.fixed.points_mm, axis=1)
    assert np.nanmean(distance) < 0.75 * before


@pytest.mark.parametrize("options", [{"refine_of": "weights"}, {"refine_loss": "lncc"}])
def test_refinement_never_ends_above_where_it_began(phantoms, checkpoint, options):
    given = files(phantoms, "fixed"), files(phantoms, "moving")
    report = register(*given, checkpoint, RegisterOptions(refine=3, **options)).report
    assert report["objective_after"] <= report["objective_before"]
    weights = rc.load(checkpoint).state_dict()
    trained = Trained.of(checkpoint)
    register(*given, trained, RegisterOptions(refine=2, **options))
    assert all(torch.equal(value, weights[key]) for key, value in trained.cascade.state_dict().items())


@pytest.mark.parametrize("initial", ["centres", "moments", "affine"])
def test_an_initial_map_brings_scans_together_that_lie_apart(phantoms, checkpoint, initial, tmp_path):
    image = nibabel.load(phantoms / "moving.nii.gz")
    far = image.affine.copy()
    far[:3, 3] += [900, -400, 650]
    moved = write_scan(tmp_path / "far.nii.gz", np.asarray(image.dataobj), far)
    given = files(phantoms, "moving"), ScanFiles(moved, points=phantoms / "moving_points.csv")
    with pytest.raises(ValueError, match=r"do not overlap in space.*--initial"):
        register(*given, checkpoint, RegisterOptions(initial="none"))
    result = register(*given, checkpoint, RegisterOptions(initial=initial))
    assert result.report["landmark_distance_mm"]["initial"] < 1.0
    assert_allclose(result.transform.affine[:3, 3], [900, -400, 650], atol=3)


def test_memory_that_does_not_do_is_told_and_the_cpu_takes_over(phantoms, checkpoint, monkeypatch):
    calls, run = [], pipeline._run

    def failing(device, *arguments):
        calls.append(device)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("no memory")
        return run(device, *arguments)

    monkeypatch.setattr(pipeline, "_run", failing)
    report = register(phantoms / "fixed.nii.gz", phantoms / "moving.nii.gz", checkpoint).report
    assert len(calls) == 2 and "--precision" in report["warnings"][0]


def test_a_scan_of_another_range_is_told(phantoms, checkpoint, tmp_path):
    window = Generic(size=SIZE, fit="resample", intensity="window", window=(40000.0, 0.0))
    trained = replace(Trained.of(checkpoint), recipe=window)
    report = register(phantoms / "fixed.nii.gz", phantoms / "moving.nii.gz", trained).report
    assert any("another modality" in warning for warning in report["warnings"])


def test_a_cascade_that_was_built_says_nothing_of_its_images(phantoms):
    with pytest.raises(ValueError, match="does not say how its images are made"):
        register(phantoms / "fixed.nii.gz", phantoms / "moving.nii.gz", rc.build("voxelmorph", "cr", 1))


@pytest.mark.parametrize("fit", ["resample", "crop_pad"])
def test_scans_are_made_as_the_data_set_made_those_of_the_training(fit, phantoms):
    preprocessing = Preprocessing(size=SIZE, fit=fit, percentiles=(1.0, 99.0))
    scan, mask = phantoms / "moving.nii.gz", phantoms / "moving_labels.nii.gz"
    cases = Scans([Source("moving", scan, mask=mask)], preprocessing, {}, masked=True)
    made = {"preprocessing": cases.preprocessing}
    trained = Trained(Constant({"name": "pyramid", "width": 4}, 1), recipe_of(made, None), {})
    assert torch.equal(trained.prepare(open_scan(ScanFiles(scan, mask=mask))).as_tensor(), cases[0].image)


def test_a_scan_of_other_voxels_comes_to_those_of_the_training(phantoms):
    made = Preprocessing(size=(24, 22, 20), fit="crop_pad", percentiles=(0.0, 100.0)).as_dict()
    recipe = recipe_of({"preprocessing": made | {"orientation": "RAS", "spacing": [3.0, 3.0, 4.0]}}, None)
    trained = Trained(Constant({"name": "pyramid", "width": 4}, 1), recipe, {})
    image = trained.prepare(open_scan(ScanFiles(phantoms / "moving.nii.gz")))
    assert "".join(nibabel.aff2axcodes(image.affine)) == "RAS" and image.shape[1:] == (24, 22, 20)
    assert_allclose(np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0), [3, 3, 4], atol=1e-6)


def test_a_scan_that_other_programs_place_elsewhere_is_named_in_the_report_and_the_transform_fits_the_sform(scans):
    fixed, moving = scans
    image, agreeing = nibabel.load(moving), moving.with_name("agreeing.nii.gz")
    elsewhere = image.affine.copy()
    elsewhere[:3, 3] += (7, -5, 3)
    voxels = np.asanyarray(image.dataobj)
    for path, qform in ((moving.with_name("differing.nii.gz"), elsewhere), (agreeing, image.affine)):
        made = nibabel.Nifti1Image(voxels, image.affine)
        made.set_sform(image.affine, 2)
        made.set_qform(qform, 1)
        nibabel.save(made, path)
    out = register(fixed, moving.with_name("differing.nii.gz"), constant("resample"), RegisterOptions(device="cpu"))
    (told,) = [warning for warning in out.report["warnings"] if "sform" in warning]
    assert str(moving.with_name("differing.nii.gz")) in told
    there = sitk.Resample(sitk.ReadImage(str(agreeing)), out.moved, out.transform.itk(), sitk.sitkLinear, 0.0)
    ours, theirs = (sitk.GetArrayFromImage(one).astype(float)[3:-3, 3:-3, 3:-3] for one in (out.moved, there))
    inside = theirs > 0
    assert inside.mean() > 0.3 and np.abs(ours - theirs)[inside].mean() < 2

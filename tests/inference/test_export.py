"""Exports take images alone, agree with their model for any number of pairs, and are written whole or not at all."""

import importlib.util
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_net_in_out
from torch import Tensor

from regcascade.cascades import Cascade, build
from regcascade.cascades.checkpoint import describe, load, read, write
from regcascade.cli.main import main
from regcascade.inference import export as exporting
from regcascade.inference.bundle import metadata
from regcascade.networks.base import NETS, Network
from regcascade.networks.blocks import SameConv3d

SIZE = (17, 16, 20)
NO_ONNX = next(
    (f"{name} is missing" for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)), ""
)
MANDATORY = {  # of MONAI's bundle specification
    "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task", "description",
    "authors", "copyright", "network_data_format",
}  # fmt: skip
OF_TENSOR = {
    "type",
    "format",
    "modality",
    "num_channels",
    "spatial_shape",
    "dtype",
    "value_range",
    "is_patch_data",
    "channel_def",
}


class OneConvolution(Network):
    """A network that exports fast."""

    def __init__(self, *, levels: tuple[int, ...] = (0,), flow_multiplier: float = 1.0) -> None:
        super().__init__(levels=levels, flow_multiplier=flow_multiplier)
        self.heads["0"] = SameConv3d(2, 3)

    def features(self, pair: Tensor) -> dict[int, Tensor]:
        return {0: pair}


class LooksAtItsImages(OneConvolution):
    """A network that decides by what it sees."""

    def features(self, pair: Tensor) -> dict[int, Tensor]:
        return {0: pair if pair.mean() > 0.4 else -pair}


@pytest.fixture(autouse=True)
def their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """For these tests only: the contract tests run over whatever is registered."""
    monkeypatch.setitem(NETS._classes, "one_convolution", OneConvolution)
    monkeypatch.setitem(NETS._classes, "looks_at_its_images", LooksAtItsImages)


def checkpoint_of(
    cascade: Cascade, folder: Path, model: str = "voxelmorph", name: str = "cr", affine: str = "none"
) -> Path:
    """A checkpoint whose flows are of some voxels."""
    with torch.no_grad():
        for net in cascade.nets:
            for parameter in net.heads.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    described = describe(model, name, cascade.n, affine, SIZE, {}, {"fit": "crop_pad"}, {})
    write(folder / "model.ckpt", cascade, described)
    return folder / "model.ckpt"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return checkpoint_of(build("one_convolution", "cr", n=2), tmp_path, "one_convolution")


def a_pair(count: int = 1) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 1, *SIZE), torch.rand(count, 1, *SIZE)


def test_torch_export_is_the_model_for_any_number_of_pairs(checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "model.pt2"
    main(["export", str(checkpoint), "--to", "torch-export", "--out", str(out), "-r", "2"])
    assert "0 voxels in the flow" in capsys.readouterr().out
    for count in (1, 3):
        fixed, moving = a_pair(count)
        wanted = load(checkpoint)(moving, fixed, r=2)
        flow, moved = torch.export.load(out).module()(fixed, moving)
        torch.testing.assert_close(flow, wanted.flow)
        torch.testing.assert_close(moved, wanted.moved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "model.pt2"]


@pytest.mark.skipif(bool(NO_ONNX), reason=NO_ONNX or "all are there")
def test_onnx_is_the_model(checkpoint: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "model.onnx"
    main(["export", str(checkpoint), "--to", "onnx", "--out", str(out)])
    session = onnxruntime.InferenceSession(out)
    fixed, moving = a_pair()
    flow, moved = session.run(["flow", "moved"], {"fixed": fixed.numpy(), "moving": moving.numpy()})
    wanted = load(checkpoint)(moving, fixed)
    assert wanted.flow.abs().max() > 0.05
    np.testing.assert_allclose(flow, wanted.flow.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(moved, wanted.moved.detach().numpy(), atol=1e-5)


def test_onnx_says_which_package_it_lacks(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"needs onnx: pip install 'regcascade\[export\]'"):
        exporting.export(read(checkpoint), "onnx", tmp_path / "model.onnx")


def test_monai_runs_the_bundle(checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    checkpoint.with_suffix(".md").write_text("The card of this model.", encoding="utf-8")
    main(["export", str(checkpoint), "--to", "monai-bundle", "--out", str(bundle)])
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    fixed, moving = a_pair()
    for name, image in (("fixed", fixed), ("moving", moving)):
        nibabel.save(nibabel.Nifti1Image(image[0, 0].numpy(), affine), tmp_path / f"{name}.nii.gz")
    config, meta = (str(bundle / "configs" / f"{name}.json") for name in ("inference", "metadata"))
    places = {"bundle_root": str(bundle), "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    workflow = ConfigWorkflow(config, meta_file=meta, workflow_type="infer", logging_file=False, **places)
    workflow.initialize()
    workflow.run()
    wanted = load(checkpoint)(moving, fixed)
    for name, volume in (("flow", wanted.flow[0].movedim(0, -1)), ("moved", wanted.moved[0, 0])):
        written = nibabel.load(tmp_path / "out" / "moving" / f"moving_{name}.nii.gz")
        np.testing.assert_allclose(written.get_fdata(), volume.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(written.affine, affine)
    verify_net_in_out("network_def", meta_file=meta, config_file=config, device="cpu", bundle_root=str(bundle))
    assert "The card of this model." in (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "regcascade" not in Path(config).read_text(encoding="utf-8")


def test_the_metadata_has_what_the_specification_asks(checkpoint: Path) -> None:
    about = json.loads(json.dumps(metadata(read(checkpoint), SIZE, "bundle")))
    assert set(about) >= MANDATORY
    formats = about["network_data_format"]
    for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        assert set(tensor) >= OF_TENSOR
        assert tensor["spatial_shape"] == list(SIZE)
        assert list(tensor["channel_def"]) == [str(channel) for channel in range(tensor["num_channels"])]


def test_the_card_of_a_built_in_model_is_in_its_bundle(tmp_path: Path) -> None:
    exporting.export(read("hippocampus"), "monai-bundle", tmp_path / "hippocampus", size=(16, 24, 16))
    assert "CC BY-SA 4.0" in (tmp_path / "hippocampus" / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["torch-export", "monai-bundle"])
def test_control_flow_that_depends_on_the_images_is_refused(tmp_path: Path, form: str, capfd) -> None:
    model = checkpoint_of(build("looks_at_its_images", "cr", n=1), tmp_path, "looks_at_its_images")
    out = tmp_path / f"model{exporting.SUFFIXES[form]}"
    with pytest.raises(ValueError, match=r"cannot be traced exactly for every pair \(.*data-dependent") as error:
        exporting.export(read(model), form, out)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


@pytest.mark.parametrize("form", ["torch-export", "monai-bundle"])
def test_what_differs_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="differs from the model by 0 voxels"):
        exporting.export(read(checkpoint), form, tmp_path / f"export{exporting.SUFFIXES[form]}")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]


def test_an_alignment_of_each_pair_is_refused(tmp_path: Path) -> None:
    model = checkpoint_of(build("voxelmorph", "cr", n=1, affine="precomputed"), tmp_path, affine="precomputed")
    with pytest.raises(ValueError, match="affine=precomputed"):
        exporting.export(read(model), "torch-export", tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [
        ("torch-export", "model.pt", "name a .pt2 file"),
        ("torch-export", "none/model.pt2", "does not exist"),
        ("torch-export", "there.pt2", "--overwrite"),
        ("monai-bundle", "full", "is not empty"),
        ("monai-bundle", "there.pt2", "name a folder"),
    ],
)
def test_a_place_that_will_not_do_is_named_before_the_work(
    checkpoint: Path, tmp_path: Path, form: str, name: str, message: str
) -> None:
    (tmp_path / "there.pt2").write_text("kept", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("kept", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        exporting.export(read(checkpoint), form, tmp_path / name)
    assert (tmp_path / "there.pt2").read_text(encoding="utf-8") == "kept"
    with pytest.raises(ValueError, match="not empty"):
        exporting.export(read(checkpoint), "monai-bundle", tmp_path / "full", overwrite=True)


@pytest.mark.filterwarnings("ignore")
def test_a_trace_names_no_device() -> None:
    network = exporting.Registering(build("vtn", "mcr", n=1, affine="learned", size=(16, 16, 16))).eval()
    images = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)
    traced = torch.jit.trace(network.requires_grad_(False), images, check_trace=False)
    assert 'value="cpu"' not in str(traced.inlined_graph)


@pytest.mark.long
@pytest.mark.parametrize("cascade", ["cr", "mcr"])
@pytest.mark.parametrize("model", ["voxelmorph", "vtn", "drnet", "pyramid"])
def test_every_network_is_exported(tmp_path: Path, model: str, cascade: str) -> None:
    torch.manual_seed(0)
    path = checkpoint_of(build(model, cascade, n=2), tmp_path, model, cascade)
    for form, suffix in exporting.SUFFIXES.items():
        if form != "onnx" or not NO_ONNX:
            exporting.export(read(path), form, tmp_path / f"export{suffix}")

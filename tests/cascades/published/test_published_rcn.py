"""RCN's variables, against its graph in NumPy."""

import json
import pickle

import numpy as np
import pytest
import tensorflow_graphs
import torch

import regcascade as rc
from regcascade.cascades.checkpoint import read
from regcascade.cascades.published import read_rcn
from regcascade.cli.main import main
from regcascade.data.preprocessing.recipes import build_recipe


@pytest.fixture
def file(tmp_path):
    return tmp_path / "variables.npz"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "imported.ckpt"


def images(size):
    generator = np.random.default_rng(1)
    return generator.uniform(size=(2, *size))


def tensor(volume):
    return torch.from_numpy(volume).float()[None, None]


@pytest.mark.parametrize(
    ("networks", "size", "last"),
    [(["vtn", "vtn"], (66, 20, 17), (2, 1, 1)), (["voxelmorph", "vtn"], (16, 32, 80), (1, 1, 2))],
)
def test_an_imported_cascade_computes_what_the_graph_does(variables, file, out, networks, size, last):
    variables.affine(last)
    for k, network in enumerate(networks):
        getattr(variables, network)(k)
    adam = {f"{name}/Adam_1": np.ones_like(value) for name, value in variables.made.items() if name.endswith("b")}
    np.savez(file, **variables.made, **adam, beta1_power=np.float32(0.9))
    main(["import", "rcn", str(file), "--out", str(out), "--size", *map(str, size)])
    fixed, moving = images(size)
    with torch.no_grad():
        registration = rc.load(out)(tensor(moving), tensor(fixed))
    expected = tensorflow_graphs.cascade(variables.made, networks, fixed, moving)
    assert all(np.abs(stage.flow.numpy()).max() > 0.5 for stage in registration.stages)
    np.testing.assert_allclose(registration.flow[0].permute(1, 2, 3, 0).numpy(), expected, atol=2e-3, rtol=1e-3)


def test_the_checkpoint_describes_the_papers_preprocessing(variables, file, out, capsys):
    variables.affine((2, 2, 2))
    variables.vtn(0, width=3)
    variables.vtn(1, width=3)
    np.savez(file, **{f"{name}:0": value for name, value in variables.made.items()})
    main(["import", "rcn", str(file), "--out", str(out), "--label-names", "1=liver"])
    checkpoint = read(out)
    assert checkpoint.description["size"] == [128, 128, 128]
    assert checkpoint.description["label_names"] == {1: "liver"}
    assert build_recipe(checkpoint.description["preprocessing"]["recipe"]).window == (290.0, 120.0)
    assert checkpoint.summary == "model=vtn cascade=cr n=2 affine=learned"
    assert "model=vtn model.width=3 n=2 affine=learned" in capsys.readouterr().out
    assert all(parameter.requires_grad for parameter in checkpoint.build().parameters())


def test_a_brain_recipe_and_no_affine_stem(variables, file):
    variables.voxelmorph(0, width=32)
    np.savez(file, **variables.made)
    published = read_rcn(file, recipe="brain")
    assert published.model == {"name": "voxelmorph", "width_multiplier": 2}
    assert (published.affine, published.size) == ({"name": "none"}, (128, 128, 128))
    assert published.preprocessing["recipe"]["name"] == "brain"


def test_an_affine_stem_alone_is_a_cascade_of_no_stage(variables, file, out):
    variables.affine((1, 1, 1))
    np.savez(file, **variables.made)
    main(["import", "rcn", str(file), "--out", str(out)])
    assert rc.load(out).n == 0 and rc.load(out).size == (64, 64, 64)


def test_different_networks_are_listed_as_stages(variables, file, out, capsys):
    variables.vtn(0, width=1)
    variables.voxelmorph(1)
    np.savez(file, **variables.made)
    main(["import", "rcn", str(file), "--out", str(out)])
    assert "'cascade.stages=[{name:vtn,width:1},{name:voxelmorph,width_multiplier:1}]'" in capsys.readouterr().out
    assert [type(net).__name__ for net in rc.load(out).nets] == ["VTN", "VoxelMorph"]


def drop(name):
    return lambda made: made.pop(name)


def put(name, shape):
    return lambda made: made.update({name: np.zeros(shape, np.float32)})


STEM = "gaffdfrm/deform_stem_0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(f"{STEM}/conv3_1/b"), f"weights of a recursive cascade: it lacks {STEM}/conv3_1/b"),
        (drop(f"{STEM}/conv1/W"), f"no kernel {STEM}/conv1/W"),
        (put(f"{STEM}/conv9/W", (3, 3, 3, 1, 1)), f"{STEM}/conv9/W would be left over"),
        (put(f"{STEM}/conv2/W", (3, 3, 3, 2, 5)), r"conv2/W has the shape \[3, 3, 3, 2, 5\].*\[3, 3, 3, 2, 4\] there"),
        (put("gaffdfrm/deform_stem_3/conv1/W", (3, 3, 3, 2, 2)), "but no deform_stem_1"),
        (put("generator/kernel", (3, 3)), "generator/kernel is none"),
        (put("other/deform_stem_0/conv1/W", (3, 3, 3, 2, 2)), "more than one model"),
        (drop(f"{STEM}/upsamp1to0/W"), "neither a VTN.*nor a VoxelMorph"),
        (lambda made: made[f"{STEM}/pred2/b"].fill(np.nan), "pred2/b is not made of finite numbers"),
        (lambda made: made.clear(), "it has none"),
    ],
)
def test_what_is_no_model_is_refused(variables, file, change, message):
    variables.vtn(0)
    change(variables.made)
    np.savez(file, **variables.made)
    with pytest.raises(ValueError, match=message) as error:
        read_rcn(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_voxelmorph_of_an_odd_width_is_refused(variables, file):
    variables.voxelmorph(0, width=8)
    np.savez(file, **variables.made)
    with pytest.raises(ValueError, match="has 8 maps, and VoxelMorph's a multiple of 16"):
        read_rcn(file)


def test_sizes_that_the_affine_stem_does_not_fit_are_refused(variables, file):
    variables.affine((2, 1, 1))
    np.savez(file, **variables.made)
    assert read_rcn(file, (70, 40, 24)).size == (70, 40, 24)
    with pytest.raises(ValueError, match=r"--size 128 128 128 does not fit.*128 64 64"):
        read_rcn(file, (128, 128, 128))


class Runs:
    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


def test_pickles_and_foreign_files_are_refused(file):
    np.savez(file, **{f"{STEM}/conv1/W": np.array([Runs()], dtype=object)})
    with pytest.raises(ValueError, match="of plain arrays"):
        read_rcn(file)
    for content in (pickle.dumps(Runs()), b"", b"PK\x03\x04 cut off", b"words"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="of plain arrays"):
            read_rcn(file)
    with file.open("wb") as opened:
        np.save(opened, np.zeros(3))
    with pytest.raises(ValueError, match="of plain arrays"):
        read_rcn(file)


def test_the_command_tells_a_missing_file_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["import", "rcn", str(tmp_path / "nothing.npz"), "--out", str(tmp_path / "out.ckpt")])
    assert "There is no file" in capsys.readouterr().err
    assert not (tmp_path / "out.ckpt").exists()


@pytest.mark.shared
def test_every_released_graph_is_imported(shared, file):
    graphs = json.loads((shared / "data/weights/rcn_tf_variables.json").read_text(encoding="utf-8"))
    for name, shapes in graphs.items():
        network, n, _ = name.split("_")
        np.savez(file, **{variable: np.zeros(shape, np.float32) for variable, shape in shapes.items()})
        published = read_rcn(file)
        assert (published.model["name"], published.n) == (network.lower(), int(n[1:]))
        assert published.affine == {"name": "learned"} and published.size == (128, 128, 128)
        assert len(published.weights) == len(shapes)

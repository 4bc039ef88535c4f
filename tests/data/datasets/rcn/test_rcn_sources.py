"""RCN's HDF5 files prepared: the same as `data=rcn_h5` reads, in the frame that the user says."""

import h5py
import nibabel
import numpy as np
import pytest
import torch
from rcn_toys import SIZE, brain_json, edit, liver_json, volume

from regcascade.cli.main import main
from regcascade.data import build_data
from regcascade.data.datasets.rcn.sources import h5_sources
from regcascade.data.io.images import VolumeError, read_header
from regcascade.data.preprocessing.case_files import PreparedCases
from regcascade.data.preprocessing.prepare import prepare

AS_THEY_ARE = {"name": "liver", "crop": "none", "window": [255, 127.5], "size": list(SIZE)}


def outcomes(sources, out, recipe=AS_THEY_ARE):
    return {one.name: one for one in prepare(sources, out, recipe)}


def test_prepared_cases_are_those_that_rcn_h5_reads(tmp_path):
    root = liver_json(tmp_path)
    sources, names = h5_sources(root, ["sliver-val"])
    assert names == {1: "liver"} and [source.name for source in sources] == ["1", "2", "3"]
    prepare(sources, tmp_path / "out", AS_THEY_ARE, label_names=names)
    direct = build_data({"name": "rcn_h5", "root": str(root), "train": None, "num_workers": 0}).cases
    for case in PreparedCases(tmp_path / "out"):
        twin = direct[direct.names.index(f"yanx/{case.name}")]
        torch.testing.assert_close(case.image, twin.image, atol=1e-6, rtol=0)
        assert torch.equal(case.labels, twin.labels)
        torch.testing.assert_close(case.points, twin.points, equal_nan=True)
    record = PreparedCases(tmp_path / "out").records[0]
    assert record.source["series"] == "1" and record.source["image"].endswith("sliver.h5")


def test_label_values_and_landmarks_follow_the_frame_that_is_said(tmp_path):
    """LSA: the first axis leads to the left, the second up, the third to the front."""
    sources, names = h5_sources(brain_json(tmp_path), ["val"], None, (2.0, 1.0, 3.0), "LSA")
    assert names == {21: "gyrus", 182: "182"}
    with h5py.File(sources[0].image, "a") as file:
        file["S01/point"] = np.array([[2, 4, 5], [-1, 0, 0]])
        there = file["S01/volume"][2, 4, 5]
    recipe = {"name": "generic", "size": [16, 16, 18], "intensity": "window", "window": [255, 127.5]}
    prepare(sources, tmp_path / "out", recipe)
    case = PreparedCases(tmp_path / "out")[0]
    assert case.spacing == (2.0, 3.0, 1.0)
    assert case.points[0].tolist() == [13, 5, 4] and case.points[1].isnan().all()
    assert round(float(case.image[0, 13, 5, 4]) * 255) == there
    np.testing.assert_allclose(case.image[0].numpy() * 255, volume(0)[::-1].transpose(0, 2, 1), atol=1e-4)
    assert case.labels.unique().tolist() == [0, 21, 182]
    affine = np.array(PreparedCases(tmp_path / "out").records[0].affine)
    np.testing.assert_allclose(affine @ [13, 5, 4, 1], [-4, 15, 4, 1], atol=1e-6)


def test_adjacent_scans_are_a_group_as_rcn_h5_pairs_them(tmp_path):
    root = liver_json(tmp_path)
    prepare(h5_sources(root, ["lspig-val"], adjacent=True)[0], tmp_path / "out", AS_THEY_ARE)
    options = {"validation_pairs": None, "num_workers": 0}
    prepared = build_data(
        {"name": "prepared", "test": str(tmp_path / "out"), "pairing": "group", **options}
    ).validation_pairs
    direct = build_data(
        {"name": "rcn_h5", "root": str(root), "train": None, "validation": "lspig", "pairing": "adjacent", **options}
    ).validation_pairs
    assert {(f"pigs/{fixed}", f"pigs/{moving}") for fixed, moving in prepared} == set(direct) and len(direct) == 6


def test_a_case_is_kept_until_its_own_group_or_its_frame_changes(tmp_path):
    root, out = liver_json(tmp_path), tmp_path / "out"
    sources = h5_sources(root, ["sliver-val"])[0]
    prepare(sources, out, AS_THEY_ARE)
    with h5py.File(sources[0].image, "a") as file:
        file["2/point"][0] = [3, 3, 3]
    assert [one.outcome for one in prepare(sources, out, AS_THEY_ARE)] == ["kept", "prepared", "kept"]
    turned = h5_sources(root, ["sliver-val"], axes="LPS")[0]
    assert {one.outcome for one in prepare(turned, out, AS_THEY_ARE)} == {"prepared"}


def test_scans_of_one_name_in_several_files_are_told_apart(tmp_path):
    root = liver_json(tmp_path)
    edit(root, lambda content: content["subsets"].update(both=["yanx/1", "youyi/a", "pigs/1", "nowhere"]))
    edit(root, lambda content: content["files"].pop("/"))
    sources = {source.name: source for source in h5_sources(root, ["both"])[0]}
    assert set(sources) == {"yanx_1", "youyi_a", "pigs_1", "nowhere"}
    told = outcomes(list(sources.values()), tmp_path / "out")
    assert told["yanx_1"].outcome == told["youyi_a"].outcome == "prepared"
    assert "pigs.h5 has no group '1'" in told["pigs_1"].reason
    assert "the scan 'nowhere' is of no file" in told["nowhere"].reason


def test_a_bad_group_stops_no_other(tmp_path):
    sources = h5_sources(liver_json(tmp_path), ["lspig-val"])[0]
    bad = [source.series for source in sources]
    with h5py.File(sources[0].image, "a") as file:
        del file[bad[0]], file[f"{bad[1]}/volume"], file[f"{bad[2]}/segmentation"]
        file[f"{bad[2]}/segmentation"] = np.zeros((4, 4, 4))
        file[f"{bad[3]}/point"] = np.full((6, 3), 99.0)
        file[f"{bad[4]}/volume"][...] = 0
    told = [outcomes(sources, tmp_path / "out")[source.name].reason for source in sources]
    for reason, wanted in zip(
        told,
        ["has no group", "no 'volume' in its group", "has the shape (4, 4, 4)", "landmark outside", "is constant", ""],
        strict=True,
    ):
        assert wanted in reason
    assert PreparedCases(tmp_path / "out").names == [bad[5]]


def test_files_cut_short_or_missing_are_told_for_each_scan(tmp_path):
    sources = h5_sources(liver_json(tmp_path), ["sliver-val"])[0]
    whole = sources[0].image.read_bytes()
    sources[0].image.write_bytes(whole[: len(whole) // 2])
    assert all("cannot be read as HDF5" in one.reason for one in outcomes(sources, tmp_path / "out").values())
    sources[0].image.unlink()
    assert all("sliver.h5 does not exist" in one.reason for one in outcomes(sources, tmp_path / "out").values())


def test_the_search_for_a_liver_refuses_what_is_windowed_already(tmp_path):
    sources = h5_sources(liver_json(tmp_path), ["sliver-val"])[0]
    told = outcomes(sources, tmp_path / "out", {"name": "liver", "size": list(SIZE)})
    assert all("no Hounsfield units to search a liver by; crop=none" in one.reason for one in told.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "lists several subsets: name those to prepare by --subset. It has: msd-train (3), bfh-train (2)"),
        (["--subset", "sliver"], "--subset sliver: {} has no such subset. It has: msd-train (3)"),
        (["--scans", "bfh/*"], "--scans bfh/*: {} lists no such scan in these subsets: msd-train (3)"),
        (["--subset", "sliver-val", "--axes", "RAR"], "--axes=RAR is not valid"),
        (["--subset", "sliver-val", "--spacing", "1", "0", "1"], "--spacing=[1.0, 0.0, 1.0] is not valid"),
        (["--subset", "sliver-val", "--labels", "*"], "--labels is for a folder of scans"),
    ],
)
def test_bad_options_end_with_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    root = liver_json(tmp_path)
    with pytest.raises(SystemExit):
        main(["prepare", str(root), "--out", str(tmp_path / "out"), *arguments])
    assert message.format(root) in capsys.readouterr().err


def test_the_command_takes_the_json(tmp_path, capsys):
    root = liver_json(tmp_path)
    command = ["prepare", str(root), "--subset", "sliver-val", "--out", str(tmp_path / "out"), "--workers", "1"]
    main([*command, "--recipe", "liver", "--set", "crop=none", "window=[255,127.5]", "size=[16,18,16]"])
    assert "3 scans" in capsys.readouterr().out
    assert PreparedCases(tmp_path / "out").label_names == {1: "liver"}
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path), "--images", "*.nii", "--subset", "x", "--out", str(tmp_path / "out")])
    assert "--subset is for the JSON" in capsys.readouterr().err


def test_an_hdf5_file_alone_is_refused_with_what_to_do(tmp_path):
    liver_json(tmp_path)
    with pytest.raises(VolumeError, match=r"sliver\.h5: HDF5 files are read by the JSON"):
        read_header(tmp_path / "datasets/sliver.h5")

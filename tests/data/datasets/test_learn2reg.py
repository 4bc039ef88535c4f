"""`data=learn2reg`: tasks of the challenge, laid out as it lays them out."""

import json
from pathlib import Path

import pytest
from toy_scans import write_scan

from regcascade.data import build_data

SUBJECTS = range(1, 5)
FILES = {"image": "t1", "label": "seg", "mask": "mask", "keypoints": "points"}


def entry(subject: int, modality: int, keys: tuple[str, ...] = tuple(FILES)) -> dict[str, str]:
    name = f"Toy_{subject:04}_{modality:04}"
    # The challenge's own lists give landmarks the suffix of an image.
    return {key: f"./{FILES[key]}Tr/{name}.nii.gz" for key in keys}


def pair(subject: int, fixed: int = 0, moving: int = 1) -> dict[str, str]:
    return {"fixed": entry(subject, fixed)["image"], "moving": entry(subject, moving)["image"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four subjects of two scans each, paired; the fourth validates."""
    for subject in SUBJECTS:
        for modality in (0, 1):
            image = write_scan(tmp_path / "all", 2 * (subject % 2) + modality, f"{{}}_{subject}_{modality}.nii.gz")
            for key, kind in FILES.items():
                suffix = ".csv" if key == "keypoints" else ".nii.gz"
                source = image.with_name(f"{kind}_{subject}_{modality}{suffix}")
                target = tmp_path / entry(subject, modality)[key].replace(".nii.gz", suffix)
                target.parent.mkdir(exist_ok=True)
                source.rename(target)
    manifest = {
        "name": "Toy",
        "labels": {"0": {"0": "background", "1": "liver", "2": "tumour"}},
        "pairings": "paired",
        "registration_direction": {"fixed": 0, "moving": 1},
        "training": [entry(subject, modality) for subject in SUBJECTS for modality in (0, 1)],
        "test": [{"image": "./imagesTs/absent.nii.gz"}],
        "training_paired_images": [pair(subject) for subject in SUBJECTS],
        "registration_val": [pair(4)],
        "registration_test": [{"fixed": "./imagesTs/absent.nii.gz", "moving": "./imagesTs/unlisted.nii.gz"}],
    }
    (tmp_path / "Toy_dataset.json").write_text(json.dumps(manifest))
    return tmp_path


def edit(root: Path, **changes: object) -> None:
    path = root / "Toy_dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def build(folder: Path, **options: object):
    return build_data({"name": "learn2reg", "root": str(folder), "size": [16, 16, 16], **options})


def test_a_paired_task_trains_on_its_pairs_less_those_it_validates_on(root):
    data = build(root)
    assert data.validation_pairs == [("Toy_0004_0000", "Toy_0004_0001")] and data.has_labels
    assert data.label_names == {1: "liver", 2: "tumour"}
    assert data.train_names == [f"Toy_{subject:04}_{modality:04}" for subject in (1, 2, 3) for modality in (0, 1)]
    data.setup("fit")
    batches = list(data.train_dataloader())
    drawn = {(batch["fixed_name"][0], batch["moving_name"][0]) for batch in batches}
    assert drawn == {(f"Toy_{subject:04}_0000", f"Toy_{subject:04}_0001") for subject in (1, 2, 3)}
    assert batches[0]["moving_points"].shape == (1, 3, 3)


def test_pairs_of_a_subject_are_told_by_their_names_where_none_are_listed(root):
    edit(root, training_paired_images=[], registration_direction={"fixed": 1, "moving": 0})
    assert set(build(root).split.train_pairs) == {
        (f"Toy_{subject:04}_0001", f"Toy_{subject:04}_0000") for subject in (1, 2, 3)
    }


def test_an_unpaired_task_draws_any_two_scans_and_may_be_split_by_modality(root):
    lists = {str(modality): [entry(subject, modality) for subject in SUBJECTS] for modality in (0, 1)}
    edit(root, pairings="unpaired", training=lists)
    data = build(root)
    assert data.split.train_pairs is None and len(data.train_names) == 6
    assert build(root, training="listed").split.train_pairs is not None
    edit(root, pairings="paired")
    assert build(root, training="random").split.train_pairs is None


def test_labels_points_and_masks_are_as_asked_for(root):
    data = build(root, labels="mask", points="none", masked=True, fit="crop_pad")
    assert data.label_names == {1: "label_1"} and not data.cases.landmarked(0)
    case = data.cases[0]
    assert not case.image[case.labels == 0].any() and case.image[case.labels == 1].any()


def test_other_pairs_may_be_of_any_scan(root):
    edit(root, test=[])
    (root / "pairs.csv").write_text("fixed,moving\nToy_0001_0000,Toy_0002_0001\n")
    data = build(root, pairs=str(root / "pairs.csv"), validation="none")
    assert data.validation_pairs == [("Toy_0001_0000", "Toy_0002_0001")]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"root": None}, r"data\.root=DIR"),
        ({}, {"root": "nowhere"}, "There is no folder nowhere"),
        ({}, {"validation": "registration_vall"}, r"lists no pairs under that key.*Did you mean 'registration_val'"),
        ({}, {"validation": "registration_test"}, r"'registration_test' has .*unlisted\.nii\.gz, which neither"),
        ({}, {"training": "some"}, r"data\.training=some is not valid"),
        ({}, {"labels": "seg"}, r"data\.labels=seg: no scan of .* has that key"),
        ({}, {"points": "keypoint"}, r"data\.points=keypoint: .*Did you mean 'keypoints'"),
        ({"registration_val": [pair(4, 0, 0)]}, {}, r"pair 1 of 'registration_val' has .* paired with itself"),
        ({"registration_val": [{"fixed": "a"}]}, {}, r"pair 1 of 'registration_val' has a, which neither"),
        ({"training": [{"label": "x"}]}, {}, r"a scan under 'training' has no 'image'"),
        ({"training": 3}, {}, r"has no list 'training'"),
        ({"training": [], "test": []}, {}, "lists no scans"),
        ({"training_paired_images": [], "registration_direction": {"fixed": 0, "moving": 2}}, {}, "no two scans of"),
        ({"registration_direction": {"fixed": 0}}, {}, "'registration_direction' must be like"),
        ({"labels": {"0": {"liver": 1}}}, {}, r"Toy_dataset\.json: 'labels' must map numbers to names"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(root, change, options, message):
    edit(root, **change)
    with pytest.raises(ValueError, match=message):
        build(root, **options)


def test_bad_files_are_refused(root):
    (root / "other_dataset.json").write_text("{}")
    with pytest.raises(ValueError, match=r"should have one <task>_dataset\.json, and has 2"):
        build(root)
    (root / "other_dataset.json").unlink()
    points = root / entry(2, 0)["keypoints"].replace(".nii.gz", ".csv")
    points.write_text("1,2,3\n")
    with pytest.raises(ValueError, match=r"landmarks and .* but scans that are paired need the same"):
        build(root)
    points.unlink()
    with pytest.raises(ValueError, match=r"Toy_0002_0000\.csv does not exist"):
        build(root)
    (root / "Toy_dataset.json").write_text('{"training"')
    with pytest.raises(ValueError, match=r"Toy_dataset\.json cannot be read as JSON"):
        build(root)


def test_a_scan_may_be_listed_twice_but_two_scans_may_not_share_a_name(root):
    edit(root, test=[entry(1, 0, ("image",))])
    assert build(root).has_labels
    edit(root, test=["./imagesTs/Toy_0001_0000.nii.gz"])
    with pytest.raises(ValueError, match="more than one scan of the name 'Toy_0001_0000'"):
        build(root)

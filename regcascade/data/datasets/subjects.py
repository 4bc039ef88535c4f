"""Scans that globs find below a folder, such as one folder for each subject."""

from collections.abc import Mapping
from pathlib import Path

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.scan_lists import check_names, find
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Part, split_names


@DATA_SETS.register("subjects")
class SubjectsData(DataSet):
    """Every scan that a glob finds, named by what its wildcards stand for; labels, masks and landmarks belong to the
    scan whose wildcards stand for the same.

    Args, beside those that `DataSet` describes:
        root: the folder to search.
        images: the glob of the images below it, such as `*/t1.nii.gz`.
        labels: that of the label maps, such as `*/seg.nii.gz`.
        masks: that of the masks; images are set to 0 outside.
        points: that of the landmarks.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        root: str | None = None,
        images: str | None = None,
        labels: str | None = None,
        masks: str | None = None,
        points: str | None = None,
        label_names: Mapping[int | str, str] | None = None,
        train: Part = None,
        validation: Part = 0.15,
        cache: bool | str = "auto",
        seed: int = 0,
    ) -> None:
        if root is None or images is None:
            raise ValueError(
                "data=subjects needs a folder and a glob of the images below it: data.root=DIR "
                "'data.images=*/t1.nii.gz'."
            )
        sources = check_names(find(Path(root), images, labels, masks, points), Path(root))
        self.cases = Scans(sources, preprocessing, check_label_names(label_names), cache, masked=masks is not None)
        self.split = split_names(self.cases.names, self.cases.labelled_names(), validation, train, seed)
        self.cases.check_landmarks([], self.cases.names)

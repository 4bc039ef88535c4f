"""Scans that globs find below a folder, such as those of one folder for each subject."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from regcascade.data.augmentation import AugmentationSpec
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.scan_lists import check_names, find
from regcascade.data.module import DATA_SETS, RegistrationData
from regcascade.data.options import check_count
from regcascade.data.preprocessing.standard import LIVER_WINDOW, Preprocessing
from regcascade.data.splits import Part, split_names


@DATA_SETS.register("subjects")
class SubjectsData(RegistrationData):
    """Every scan that a glob finds, named by what its wildcards stand for; labels, masks and landmarks belong to the
    scan whose wildcards stand for the same.

    Args:
        root: the folder to search.
        images: the glob of the images below it, such as `*/t1.nii.gz`.
        labels: that of the label maps, such as `*/seg.nii.gz`.
        masks: that of the masks; images are set to 0 outside.
        points: that of the landmarks.
        label_names: what each label value means; None names those found.
        size: sides in voxels to bring every scan to.
        fit: `crop_pad` or `resample`; see `Preprocessing`, as for the next four.
        pad: a value in 0..1, or `edge`.
        intensity: `percentiles` or `window`.
        percentiles: (low, high).
        window: (width, level).
        train: a fraction, a count, names, or a file of names; None for all that validation leaves.
        validation: the same.
        cache: how to keep the preprocessed scans in memory: `auto`, `float32`, `float16`, `uint8` or `none`; true is
            `auto`, false `none`. See `chosen_store`.
        validate: see `RegistrationData`, as for all that follow.
        batch_size: of training.
        num_workers: worker processes.
        seed: of the split, too.
        pairs: CSV file of the validation pairs.
        validation_pairs: how many to draw.
        pairs_per_epoch: training pairs.
        augmentation: `none`, a name, a mapping with `name` and options, or a list of them.
    """

    def __init__(
        self,
        root: str | None = None,
        images: str | None = None,
        labels: str | None = None,
        masks: str | None = None,
        points: str | None = None,
        label_names: Mapping[int | str, str] | None = None,
        size: Sequence[int] = (128, 128, 128),
        fit: str = "resample",
        pad: float | str = 0.0,
        intensity: str = "percentiles",
        percentiles: Sequence[float] = (1.0, 99.0),
        window: Sequence[float] = LIVER_WINDOW,
        train: Part = None,
        validation: Part = 0.15,
        cache: bool | str = "auto",
        validate: bool = True,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        pairs: str | None = None,
        validation_pairs: int | None = 60,
        pairs_per_epoch: int = 1000,
        augmentation: AugmentationSpec = "none",
    ) -> None:
        if root is None or images is None:
            raise ValueError(
                "data=subjects needs a folder and a glob of the images below it: data.root=DIR "
                "'data.images=*/t1.nii.gz'."
            )
        check_count("data.seed", seed, 0)
        names = check_label_names(label_names)
        preprocessing = Preprocessing(size, fit, pad, intensity, percentiles, window)
        sources = check_names(find(Path(root), images, labels, masks, points), Path(root))
        cases = Scans(sources, preprocessing, names, cache, masked=masks is not None)
        split = split_names(cases.names, cases.labelled_names(), validation, train, seed)
        cases.check_landmarks([], cases.names)
        super().__init__(
            cases,
            split.train,
            split.validation,
            preprocessing.as_dict(),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pairs=pairs,
            validation_pairs=validation_pairs,
            pairs_per_epoch=pairs_per_epoch,
            augmentation=augmentation,
            validate=validate,
        )

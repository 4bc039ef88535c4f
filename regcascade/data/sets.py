"""The data sets that a config can name; each signature holds the defaults that its YAML file repeats."""

from collections.abc import Sequence

from regcascade.data.augmentation import AugmentationSpec
from regcascade.data.module import DATA_SETS, RegistrationData
from regcascade.data.msd import Decathlon
from regcascade.data.options import check_count, check_size
from regcascade.data.phantom import Phantom
from regcascade.data.preprocessing import Preprocessing
from regcascade.data.splits import Part, split_names

LIVER_WINDOW = (290.0, 120.0)  # width and level in HU, the papers' CT preprocessing


@DATA_SETS.register("phantom")
class PhantomData(RegistrationData):
    """The built-in procedural abdomen. The validation cases come first, so they stay the same whatever
    `train` is.

    Args:
        size: sides in voxels, at least 16 each.
        train: how many cases train.
        validation: how many others validate.
        batch_size: see `RegistrationData`, as for all that follow.
        num_workers: worker processes.
        seed: of the phantoms too.
        pairs: CSV file of the validation pairs.
        validation_pairs: how many to draw.
        pairs_per_epoch: training pairs.
        augmentation: `none`, a name, a mapping with `name` and options, or a list of them.
    """

    def __init__(
        self,
        size: Sequence[int] = (32, 32, 32),
        train: int = 32,
        validation: int = 8,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        pairs: str | None = None,
        validation_pairs: int | None = 20,
        pairs_per_epoch: int = 100,
        augmentation: AugmentationSpec = "none",
    ) -> None:
        check_count("data.train", train, 0)
        check_count("data.validation", validation, 0)
        check_count("data.seed", seed, 0)
        cases = Phantom(max(train + validation, 1), check_size("data.size", size), seed)
        # What would make a CT scan look like these.
        preprocessing = Preprocessing(size, "resample", 0.0, "window", (1.0, 99.0), LIVER_WINDOW)
        super().__init__(
            cases,
            cases.names[validation : validation + train],
            cases.names[:validation],
            preprocessing.as_dict(),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pairs=pairs,
            validation_pairs=validation_pairs,
            pairs_per_epoch=pairs_per_epoch,
            augmentation=augmentation,
        )


@DATA_SETS.register("msd")
class DecathlonData(RegistrationData):
    """A folder of the Medical Segmentation Decathlon, or one laid out alike.

    Args:
        root: the folder with `dataset.json`.
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
        if root is None:
            raise ValueError("data=msd needs the folder of a Decathlon task, with its dataset.json: data.root=DIR.")
        check_count("data.seed", seed, 0)
        preprocessing = Preprocessing(size, fit, pad, intensity, percentiles, window)
        cases = Decathlon(root, preprocessing, cache)
        labelled = [name for index, name in enumerate(cases.names) if cases.labelled(index)]
        split = split_names(cases.names, labelled, validation, train, seed)
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

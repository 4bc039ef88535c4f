"""Training and validation on a task of the Learn2Reg challenge."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from regcascade.data.augmentation import AugmentationSpec
from regcascade.data.datasets.learn2reg_tasks import read_task
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.module import DATA_SETS, RegistrationData
from regcascade.data.options import check_count
from regcascade.data.pairs import some_pairs
from regcascade.data.preprocessing.standard import LIVER_WINDOW, Preprocessing
from regcascade.utils.registry import check_choice

TRAINING = ("auto", "listed", "random")


@DATA_SETS.register("learn2reg")
class Learn2RegData(RegistrationData):
    """A task of the Learn2Reg challenge, in its folder.

    Args:
        root: the folder with `<task>_dataset.json` or `dataset.json`, or that file.
        validation: the key of the pairs to validate on.
        training: what training draws, always without the scans of those pairs: `listed`, the pairs of
            `training_paired_images`, or where there are none those of one subject by their names; `random`, any two
            scans of `training`; `auto`, `listed` if the task's `pairings` is `paired`.
        labels: the key of each scan's label map; `mask` takes the masks for labels.
        points: the key of each scan's landmarks; `auto` takes `keypoints` or else `landmarks`, `none` leaves them out.
        masked: set images to 0 outside their masks.
        label_names: what each label value means; None takes the task's names, or names the values found.
        size: sides in voxels to bring every scan to.
        fit: `crop_pad` or `resample`; see `Preprocessing`, as for the next four.
        pad: a value in 0..1, or `edge`.
        intensity: `percentiles` or `window`.
        percentiles: (low, high).
        window: (width, level).
        cache: how to keep the preprocessed scans in memory: `auto`, `float32`, `float16`, `uint8` or `none`; true is
            `auto`, false `none`. See `chosen_store`.
        validate: see `RegistrationData`, as for all that follow.
        batch_size: of training.
        num_workers: worker processes.
        seed: of the pairs.
        pairs: CSV file of scans' names, for other validation pairs.
        validation_pairs: how many of the validation pairs to draw; None for all.
        pairs_per_epoch: training pairs.
        augmentation: `none`, a name, a mapping with `name` and options, or a list of them.
    """

    def __init__(
        self,
        root: str | None = None,
        validation: str = "registration_val",
        training: str = "auto",
        labels: str = "label",
        points: str = "auto",
        masked: bool = False,
        label_names: Mapping[int | str, str] | None = None,
        size: Sequence[int] = (128, 128, 128),
        fit: str = "resample",
        pad: float | str = 0.0,
        intensity: str = "percentiles",
        percentiles: Sequence[float] = (1.0, 99.0),
        window: Sequence[float] = LIVER_WINDOW,
        cache: bool | str = "auto",
        validate: bool = True,
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        pairs: str | None = None,
        validation_pairs: int | None = None,
        pairs_per_epoch: int = 1000,
        augmentation: AugmentationSpec = "none",
    ) -> None:
        if root is None:
            raise ValueError("data=learn2reg needs the folder of a Learn2Reg task, with its JSON: data.root=DIR.")
        check_choice("data.training", training, TRAINING)
        check_count("data.seed", seed, 0)
        preprocessing = Preprocessing(size, fit, pad, intensity, percentiles, window)
        task = read_task(Path(root), labels, points)
        validated = [] if pairs is not None and validation not in task.pairs else task.listed(validation)
        names, train_pairs = task.training(validated, training)
        # Other pairs may be of any scans; else those that nothing needs may be missing.
        used = task.sources if pairs is not None else {*names, *(name for pair in validated for name in pair)}
        cases = Scans(
            [task.sources[name] for name in sorted(used)],
            preprocessing,
            task.label_names if label_names is None else check_label_names(label_names),
            cache,
            masked=masked,
            named_in=f"'labels' in {task.path.name}",
        )
        cases.check_landmarks([*(train_pairs or ()), *validated], () if train_pairs is not None else names)
        super().__init__(
            cases,
            names,
            [],
            preprocessing.as_dict(),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            pairs=pairs,
            validation_pairs=validation_pairs,
            pairs_per_epoch=pairs_per_epoch,
            augmentation=augmentation,
            listed=some_pairs(validated, validation_pairs, seed),
            train_pairs=train_pairs,
            validate=validate,
        )

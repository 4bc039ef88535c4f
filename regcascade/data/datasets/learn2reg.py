"""Training and validation on a task of the Learn2Reg challenge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.learn2reg_tasks import read_task
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Split
from regcascade.utils.registry import check_choice

TRAINING = ("auto", "listed", "random")


@DATA_SETS.register("learn2reg")
class Learn2RegData(DataSet):
    """A task of the Learn2Reg challenge, in its folder.

    Args:
        preprocessing: what makes a case of a scan.
        root: the folder with `<task>_dataset.json` or `dataset.json`, or that file.
        validation: the key of the pairs to validate on.
        training: what training draws, always without the scans of those pairs: `listed`, the pairs of
            `training_paired_images`, or where there are none those of one subject by their names; `random`, any two
            scans of `training`; `auto`, `listed` if the task's `pairings` is `paired`.
        labels: the key of each scan's label map; `mask` takes the masks for labels.
        points: the key of each scan's landmarks; `auto` takes `keypoints` or else `landmarks`, `none` leaves them out.
        masked: set images to 0 outside their masks.
        label_names: what each label value means; None takes the task's names, or names the values found.
        cache: how to keep cases in memory, see `chosen_store`; true is `auto`, false `none`.
        pairs: CSV file of scans' names, in place of the list `validation`.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {"validation_pairs": None}

    def __init__(
        self,
        preprocessing: Preprocessing,
        root: str | None = None,
        validation: str = "registration_val",
        training: str = "auto",
        labels: str = "label",
        points: str = "auto",
        masked: bool = False,
        label_names: Mapping[int | str, str] | None = None,
        cache: bool | str = "auto",
        pairs: str | None = None,
    ) -> None:
        if root is None:
            raise ValueError("data=learn2reg needs the folder of a Learn2Reg task, with its JSON: data.root=DIR.")
        check_choice("data.training", training, TRAINING)
        task = read_task(Path(root), labels, points)
        validated = [] if pairs is not None and validation not in task.pairs else task.listed(validation)
        names, train_pairs = task.training(validated, training)
        # Other pairs may be of any scans; else those that nothing needs may be missing.
        used = task.sources if pairs is not None else {*names, *(name for pair in validated for name in pair)}
        self.cases = Scans(
            [task.sources[name] for name in sorted(used)],
            preprocessing,
            task.label_names if label_names is None else check_label_names(label_names),
            cache,
            masked=masked,
            named_in=f"'labels' in {task.path.name}",
        )
        self.cases.check_landmarks([*(train_pairs or ()), *validated], () if train_pairs is not None else names)
        self.split = Split(names, [], pairs=validated, train_pairs=train_pairs)

"""What a data set offers, and the registry of data sets."""

from collections.abc import Mapping
from typing import Any, ClassVar

from regcascade.data.case import CaseSet
from regcascade.data.splits import Split
from regcascade.utils.registry import Registry


class DataSet:
    """Scans, and which of them train and validate.

    The parameters of its constructor are its options. `build_data` divides what a user sets: a parameter
    `preprocessing` takes a `Preprocessing` made of that class's options, and the options of `RegistrationData` load
    the pairs. An option that both the constructor and `RegistrationData` have, such as `seed`, goes to both.

    Several data sets share these parameters:
        preprocessing: what makes a case of a scan.
        train: a fraction, a count, names, or a file of names; None for all that validation leaves.
        validation: a fraction, a count, names, or a file of names.
        label_names: what each label value means; None names the values found.
        cache: how to keep cases in memory: `float32`, `float16`, `uint8` (6, 4, 3 bytes a voxel), `none`, or `auto`,
            the best that fits.
        seed: of the split, as of the pairs.

    Attributes:
        LOADING: options of `RegistrationData` whose defaults differ here.
        cases: the scans.
        split: which of them train and validate, and how they are paired.
    """

    LOADING: ClassVar[Mapping[str, Any]] = {}

    cases: CaseSet
    split: Split


DATA_SETS: Registry[DataSet] = Registry("data set", reserved=("preprocessing",))

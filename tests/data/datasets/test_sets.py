import inspect

import pytest
import torch

from regcascade.data import DATA_SETS, DataSet, Split, build_data, names, options_of
from regcascade.data.datasets.phantom import Phantom
from regcascade.data.preprocessing.standard import Preprocessing

LOADING = {
    "batch_size", "num_workers", "seed", "pairs", "validation_pairs", "pairs_per_epoch", "augmentation", "validate",
}  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_data_set_takes_the_options_of_loading(name):
    options = inspect.signature(options_of(name)).parameters
    assert options.keys() >= LOADING
    assert all(parameter.default is not parameter.empty for parameter in options.values())
    raw = "preprocessing" in inspect.signature(DATA_SETS.get(name)).parameters
    assert raw == ({"fit", "window"} <= options.keys()) and "preprocessing" not in options


def test_a_data_set_of_ones_own_is_its_cases_and_its_split(unchecked):
    @DATA_SETS.register("two_phantoms")
    class TwoPhantoms(DataSet):
        LOADING = {"pairs_per_epoch": 3}

        def __init__(self, side: int = 16) -> None:
            self.cases = Phantom(4, (side, side, side))
            self.split = Split(self.cases.names[:2], self.cases.names[2:])

    try:
        data = build_data({"name": "two_phantoms", "side": 17, "batch_size": 3})
        assert (data.size, data.batch_size, data.pairs_per_epoch) == ((17, 17, 17), 3, 3)
        assert next(iter(data.train_dataloader()))["fixed"].shape == (3, 1, 17, 17, 17)
        with pytest.raises(ValueError, match=r"data set 'two_phantoms' has no option 'sid'.*Did you mean 'side'"):
            build_data({"name": "two_phantoms", "sid": 17})
        with pytest.raises(ValueError, match="batch_size='3' is not of the right type"):
            build_data({"name": "two_phantoms", "batch_size": "3"})
    finally:
        DATA_SETS._classes.pop("two_phantoms")


def test_phantom():
    data = build_data({"name": "phantom", "size": [16, 18, 17], "train": 3, "validation": 2})
    assert data.size == (16, 18, 17) and data.has_labels
    assert len(data.validation_pairs) == 2 and len(data.train_names) == 3
    assert not {name for pair in data.validation_pairs for name in pair} & set(data.train_names)
    batch = next(iter(data.train_dataloader()))
    assert batch["fixed"].shape == (1, 1, 16, 18, 17)
    assert batch["fixed_labels"].dtype == torch.int64
    assert batch["moving_points"].shape[-1] == 3
    more = build_data({"name": "phantom", "size": [16, 18, 17], "train": 9, "validation": 2})
    assert more.validation_pairs == data.validation_pairs
    made = {key: value for key, value in data.preprocessing.items() if key not in ("orientation", "spacing")}
    assert Preprocessing(**made).size == (16, 18, 17)
    assert data.preprocessing["orientation"] == "LPS"


def test_msd(decathlon):
    root = str(decathlon(labelled=6, unlabelled=2))
    data = build_data({"name": "msd", "root": root, "size": [16, 18, 17], "validation": 3, "augmentation": "bspline"})
    assert len(data.train_names) == 5 and {"toy_06", "toy_07"} <= set(data.train_names)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["fixed"].shape == (1, 1, 16, 18, 17)
    assert "fixed_labels" not in batch
    assert "fixed_labels" in next(iter(data.val_dataloader()))
    assert data.preprocessing["fit"] == "resample"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("phantm", "Unknown data set 'phantm'. Known: datalist, learn2reg, msd, .*Did you mean 'phantom'"),
        ({"name": "msd"}, r"data\.root=DIR"),
        ({"name": "msd", "rot": "x"}, "has no option 'rot'. Known: .*Did you mean 'root'"),
        ({"name": "phantom", "root": "x"}, "has no option 'root'. Known: augmentation, batch_size"),
        ({"size": [16, 16, 16]}, "a mapping with a 'name'"),
        ({"name": "phantom", "size": [16, 16]}, r"data\.size=\[16, 16\] is not valid"),
        ({"name": "phantom", "train": -1}, r"data\.train=-1 is not valid"),
        ({"name": "phantom", "validation": 1}, "leaves 1 scans for validation"),
    ],
)
def test_build_refuses(spec, message):
    with pytest.raises(ValueError, match=message):
        build_data(spec)


def test_msd_split_that_leaves_nothing(decathlon):
    with pytest.raises(ValueError, match="leaves 1 scans for validation"):
        build_data({"name": "msd", "root": str(decathlon()), "validation": 0.15})

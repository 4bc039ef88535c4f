import inspect
from pathlib import Path

import pytest
import torch
import yaml

from regcascade.data import DATA_SETS, build_data, names
from regcascade.data.preprocessing.standard import Preprocessing

CONFIGS = Path(__file__).parents[3] / "conf/data"


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", names())
def test_yaml_lists_the_options_and_defaults_of_the_signature(name):
    written = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    parameters = inspect.signature(DATA_SETS.get(name)).parameters
    assert written == {"name": name, **{key: plain(value.default) for key, value in parameters.items()}}
    assert list(written)[1:] == list(parameters)


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
    made = {key: value for key, value in data.preprocessing.items() if key not in data.cases.frame}
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
        ("phantm", "Unknown data set 'phantm'. Known: learn2reg, msd, .*Did you mean 'phantom'"),
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

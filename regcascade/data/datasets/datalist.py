"""MONAI's datalists: a JSON of the Decathlon's style, with lists of scans that train, validate and test."""

import json
from collections.abc import Mapping
from pathlib import Path

from monai.data.decathlon_datalist import load_decathlon_datalist

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.decathlon import numbered_names
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.images import scan_name
from regcascade.data.io.raw_scan import Source
from regcascade.data.io.scan_lists import check_names
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Part, split_names
from regcascade.utils.registry import did_you_mean


@DATA_SETS.register("datalist")
class DatalistData(DataSet):
    """The scans that a datalist JSON lists, `{"training": [{"image": ..., "label": ...}], "validation": [...], ...}`.

    Args:
        preprocessing: what makes a case of a scan.
        root: the JSON.
        base: the folder that paths in it start from; None for its own.
        train: the key of the list that trains.
        validation: the key of the list that validates; or a fraction, a count or names of the list that trains.
        label_names: what each label value means; None takes the JSON's `labels`, or names the values found.
        cache: how to keep cases in memory, see `chosen_store`; true is `auto`, false `none`.
        seed: of the split, as of the pairs.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        root: str | None = None,
        base: str | None = None,
        train: str | None = "training",
        validation: Part = "validation",
        label_names: Mapping[int | str, str] | None = None,
        cache: bool | str = "auto",
        seed: int = 0,
    ) -> None:
        if root is None:
            raise ValueError("data=datalist needs a JSON with lists of scans: data.root=datalist.json.")
        path, folder = Path(root), None if base is None else Path(base)
        names = check_label_names(label_names)
        trains = [] if train is None else read_list(path, train, "data.train", folder)
        validates = read_list(path, validation, "data.validation", folder) if isinstance(validation, str) else []
        sources = check_names(list({source.image: source for source in [*trains, *validates]}.values()), path)
        told = _labels(path) if names is None else names
        self.cases = Scans(sources, preprocessing, told, cache, named_in=f"'labels' in {path.name}")
        held_out, left = validation, None
        if isinstance(validation, str):
            held_out = [source.name for source in validates]
            left = sorted({source.name for source in trains} - set(held_out))
        self.split = split_names(self.cases.names, self.cases.labelled_names(), held_out, left, seed)


def read_list(path: Path, key: str, option: str, base: Path | None = None) -> list[Source]:
    """The scans of one list of a datalist, as MONAI reads it.

    Args:
        path: the JSON.
        key: of the list.
        option: that names the list, for messages.
        base: the folder that paths start from; None for that of the JSON.

    Raises:
        ValueError: naming the JSON, if it is not there or not valid, has no such list, or an entry is no scan.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = [name for name, value in content.items() if isinstance(value, list)]
        if key not in known:
            hint = did_you_mean(key, known) or " A fraction (0.15) takes scans from the list that trains."
            raise ValueError(
                f"{option}={key}: {path} has no list of that name, but {', '.join(known) or 'none'}.{hint}"
            )
        entries = load_decathlon_datalist(path, data_list_key=key, base_dir=base)
        return [Source(scan_name(Path(one["image"])), Path(one["image"]), _path(one.get("label"))) for one in entries]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read as a datalist ({error}). Give a JSON: data.root=datalist.json."
        ) from error
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: {key!r} must list scans, {{'image': 'a.nii.gz', 'label': 'a_seg.nii.gz'}}, a file each ({error})."
        ) from error


def _path(label: str | None) -> Path | None:
    return None if label is None else Path(label)


def _labels(path: Path) -> dict[int, str] | None:
    """What the JSON says of its labels, background left out; None where it says nothing."""
    names = numbered_names(json.loads(path.read_text(encoding="utf-8")), "labels", path)
    return {value: name for value, name in sorted(names.items()) if value} or None

"""MONAI's datalists: Decathlon-like JSON files with lists of scans that train, validate and test."""

import os
from collections.abc import Mapping
from pathlib import Path

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.json_lists import listed_scan, read_json, read_label_names
from regcascade.data.datasets.scans import Scans, check_label_names
from regcascade.data.io.raw_scan import Source
from regcascade.data.io.scan_lists import check_names
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Part, split_names
from regcascade.utils.registry import did_you_mean


@DATA_SETS.register("datalist")
class DatalistData(DataSet):
    """The scans that a datalist JSON lists, `{"training": [{"image": ..., "label": ...}], "validation": [...], ...}`.

    Args, beside those that `DataSet` describes:
        root: the JSON.
        base: the folder that paths in it start from; None for its own.
        train: the key of the list that trains.
        validation: the key of the list that validates; or a fraction, a count or names of the list that trains.
        label_names: what each label value means; None takes the JSON's `labels`, or names the values found.
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
        path = Path(root)
        manifest = read_json(path)

        def listed(option: str, key: str) -> list[Source]:
            known = [name for name, value in manifest.items() if isinstance(value, list)]
            if key not in known:
                hint = did_you_mean(key, known) or " A fraction (0.15) takes scans from the list that trains."
                raise ValueError(
                    f"{option}={key}: {path} has no list of that name, but {', '.join(known) or 'none'}.{hint}"
                )
            return [listed_scan(entry, path, Path(base or path.parent)) for entry in manifest[key]]

        trains = [] if train is None else listed("data.train", train)
        validates = listed("data.validation", validation) if isinstance(validation, str) else []
        # A scan may be in both lists.
        sources = {os.path.normpath(source.image): source for source in [*trains, *validates]}
        names = check_label_names(label_names)
        if names is None:
            names = read_label_names(manifest.get("labels", {}), path) or None
        self.cases = Scans(
            check_names(list(sources.values()), path), preprocessing, names, cache, named_in=f"'labels' in {path.name}"
        )
        held_out, left = validation, None
        if isinstance(validation, str):
            held_out = [source.name for source in validates]
            left = sorted({source.name for source in trains} - set(held_out))
        self.split = split_names(self.cases.names, self.cases.labelled_names(), held_out, left, seed)

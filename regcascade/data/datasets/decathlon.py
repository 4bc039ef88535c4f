"""Folders laid out as the tasks of the Medical Segmentation Decathlon."""

from pathlib import Path

from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.json_lists import listed_scan, read_json, read_label_names
from regcascade.data.datasets.scans import Scans
from regcascade.data.io.raw_scan import Source
from regcascade.data.io.scan_lists import check_names
from regcascade.data.preprocessing.standard import Preprocessing
from regcascade.data.splits import Part, split_names

MANIFEST = "dataset.json"


@DATA_SETS.register("msd")
class DecathlonData(DataSet):
    """A folder with a Decathlon `dataset.json`: every scan under `training` and `test`, with labels or without.

    Args, beside those that `DataSet` describes:
        root: the folder with `dataset.json`.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        root: str | None = None,
        train: Part = None,
        validation: Part = 0.15,
        cache: bool | str = "auto",
        seed: int = 0,
    ) -> None:
        if root is None:
            raise ValueError("data=msd needs the folder of a Decathlon task, with its dataset.json: data.root=DIR.")
        sources, label_names = decathlon_sources(Path(root))
        self.cases = Scans(sources, preprocessing, label_names, cache, named_in=f"'labels' in {MANIFEST}")
        if not label_names and any(source.labels for source in sources):
            raise ValueError(f"{root}/{MANIFEST} lists label files, but its 'labels' does not name their values.")
        self.split = split_names(self.cases.names, self.cases.labelled_names(), validation, train, seed)


def decathlon_sources(root: Path) -> tuple[list[Source], dict[int, str]]:
    """List the raw scans of a Decathlon folder, and what their labels mean.

    Raises:
        ValueError: naming the file, if the folder or its `dataset.json` is not as it should be.
    """
    path = root / MANIFEST
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}. Give that of a Decathlon task: data.root=DIR.")
    if not path.is_file():
        raise ValueError(f"{root} has no {MANIFEST}. Give the folder of a Decathlon task that has one: data.root=DIR.")
    manifest = read_json(path)
    training, test = manifest.get("training"), manifest.get("test", [])
    if not isinstance(training, list):
        raise ValueError(f"{path} has no list 'training'. It must list the scans: [{{'image': ..., 'label': ...}}].")
    if not isinstance(test, list):
        raise ValueError(f"{path}: 'test' must be a list of image paths.")
    sources = [listed_scan(entry, path, root) for entry in (*training, *test)]
    if not sources:
        raise ValueError(f"{path} lists no scans.")
    return check_names(sources, path), read_label_names(manifest.get("labels", {}), path)

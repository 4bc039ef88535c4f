"""JSON files that list the scans of a data set, such as a Decathlon's `dataset.json`."""

import reprlib
from pathlib import Path
from typing import Any

from regcascade.data.io.images import scan_name
from regcascade.data.io.raw_scan import Source
from regcascade.utils.files import parse_json


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; JSON of any other kind counts as one without keys.

    Raises:
        ValueError: naming the file, if it is missing or not valid.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}). Give a whole file that lists scans.") from error
    return content if isinstance(content, dict) else {}


def listed_scan(entry: object, path: Path, base: Path) -> Source:
    """Read one entry of a list of scans: an image, or `{"image": ..., "label": ...}`.

    Args:
        entry: of the list.
        path: the JSON, for messages.
        base: the folder that the entry's paths start from.

    Raises:
        ValueError: naming the JSON, if the entry is neither.
    """
    given = {"image": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
    image, label = given.get("image"), given.get("label")
    if not isinstance(image, str) or not isinstance(label, str | None):
        raise ValueError(
            f"{path}: a scan is {{'image': 'imagesTr/a.nii.gz', 'label': 'labelsTr/a.nii.gz'}}, "
            f"the label optional; got {reprlib.repr(entry)}."
        )
    return Source(scan_name(Path(image)), base / image, base / label if label else None)


def read_label_names(labels: Any, path: Path) -> dict[int, str]:
    """Read the meaning of each label value from the `labels` of a JSON, background left out.

    Raises:
        ValueError: naming the JSON, if these do not map numbers to names.
    """
    try:
        names = {int(value): str(name) for value, name in labels.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path}: 'labels' must map numbers to names, such as {{'0': 'background'}}.") from error
    return {value: names[value] for value in sorted(names) if value}

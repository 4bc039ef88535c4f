"""Listed raw scans as a set of cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from regcascade.data.cache import Cache, chosen_store
from regcascade.data.case import Case, CaseSet
from regcascade.data.io.images import read_volume
from regcascade.data.io.point_tables import read_points
from regcascade.data.io.scan_lists import Source
from regcascade.data.pairs import NamePair
from regcascade.data.preprocessing.standard import Preprocessing


class Scans(CaseSet):
    """Raw scans, preprocessed. Headers and landmarks are read at once, voxels when a case is first asked for.

    Args:
        sources: the files of each scan.
        preprocessing: what to do with each.
        label_names: what each label value means, background left out; None reads every label map and names the values
            found, `label_1` and so on.
        cache: how to keep cases in memory, see `chosen_store`.
        masked: set images to 0 outside the masks of their sources.
        named_in: where label values are named, for messages.

    Raises:
        ValueError: naming the file, if anything listed is not as it should be.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        preprocessing: Preprocessing,
        label_names: Mapping[int, str] | None,
        cache: bool | str = "auto",
        *,
        masked: bool = False,
        named_in: str = "data.label_names",
    ) -> None:
        self._made_by = preprocessing
        self.names = [source.name for source in sources]
        self._sources = list(sources) if masked else [replace(source, mask=None) for source in sources]
        self._named_in = named_in
        headers = [source.check() for source in sources]
        self._frame: dict[str, Any] = {}  # the commonest orientation and the median spacing
        if headers:
            orientations = Counter("".join(aff2axcodes(header.affine)) for header in headers)
            spacing = np.median([header.spacing for header in headers], axis=0)
            self._frame = {"orientation": orientations.most_common(1)[0][0], "spacing": spacing.tolist()}
        self._landmarks = {
            source.name: len(read_points(source.points, header))
            for source, header in zip(sources, headers, strict=True)
            if source.points is not None
        }
        if label_names is None:
            files = {source.labels for source in sources if source.labels is not None}
            found = sorted({value for path in files for value in _values(path)} - {0})
            label_names = {value: f"label_{value}" for value in found}
        self.label_names = dict(label_names)
        self._cache = Cache(chosen_store(cache, len(self.names), preprocessing.size))

    def __getitem__(self, index: int) -> Case:
        """Read a case, or take it from memory; do not write to it.

        Raises:
            ValueError: naming the file, if its content is damaged, constant, not finite, or has labels without a name.
        """
        index = range(len(self))[index]
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        source = self._sources[index]
        image, labels, points, _ = self._made_by.read(source)
        if labels is not None:
            values = labels.flatten().bincount().nonzero().flatten().tolist()
            unknown = [value for value in values if value and value not in self.label_names]
            if unknown:
                raise ValueError(f"{source.labels} has the labels {unknown}, which {self._named_in} does not name.")
        x, y, z = (float(step) for step in voxel_sizes(np.asarray(image.affine)))
        whole = None if labels is None else labels.as_tensor()
        return self._cache.keep(index, Case(source.name, image.as_tensor(), (x, y, z), whole, points))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The options, the commonest orientation of the scans and their median spacing."""
        return self._made_by.as_dict() | self._frame

    def labelled(self, index: int) -> bool:
        """Whether a scan has a label map."""
        return self._sources[index].labels is not None

    def landmarked(self, index: int) -> bool:
        """Whether a scan has landmarks."""
        return self.names[index] in self._landmarks

    def check_landmarks(self, pairs: Sequence[NamePair], together: Sequence[str] = ()) -> None:
        """Check that landmarks correspond in number, where two scans that meet have any.

        Args:
            pairs: names of scans that are paired.
            together: names of scans any two of which may be.

        Raises:
            ValueError: naming two files that differ.
        """
        having = [name for name in together if name in self._landmarks]
        for first, second in [*pairs, *((having[0], name) for name in having[1:])]:
            ours, theirs = self._landmarks.get(first), self._landmarks.get(second)
            if ours is not None and theirs is not None and ours != theirs:
                files = {source.name: source.points for source in self._sources}
                raise ValueError(
                    f"{files[first]} has {ours} landmarks and {files[second]} {theirs}, but scans that are paired "
                    "need the same ones in the same order. Mend them, or leave the landmarks out."
                )


def check_label_names(label_names: Mapping[int | str, str] | None) -> dict[int, str] | None:
    """Check label values and names as a user gives them (`{1: liver}`), background left out; None stays None.

    Raises:
        ValueError: if a value is no whole number from 0 up.
    """
    if label_names is None:
        return None
    try:
        names = {int(value): str(name) for value, name in label_names.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(f"data.label_names={label_names} must map label values to names: {{1: liver}}.") from error
    if any(value < 0 for value in names):
        raise ValueError(f"data.label_names={label_names}: label values are 0 or more.")
    return {value: name for value, name in sorted(names.items()) if value}


def _values(path: Path) -> list[int]:
    values = torch.unique(read_volume(path))
    if not torch.equal(values, values.round()) or values[0] < 0:
        raise ValueError(f"{path}: labels must be whole numbers from 0 up; is this an image?")
    return [int(value) for value in values]

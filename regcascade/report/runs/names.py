"""Name runs by what they are, such as `VoxelMorph CR n=2`, wherever they are shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from regcascade.evaluation.layout import CONFIG, EVALUATE, TRAINED, read_yaml
from regcascade.report.runs.find import folder_names
from regcascade.report.runs.sweeps import described, varied

# The first ones first.
_TELLING = ("method", "model", "cascade", "affine", "loss", "data", "train_r", "seed", "repeat", "steps")
_IN_TITLE = ("model", "cascade", "cascade.stages", "n", "r")  # options that a title tells
_TITLES = {
    "voxelmorph": "VoxelMorph", "vtn": "VTN", "drnet": "DR-Net", "pyramid": "Pyramid", "cr": "CR", "mcr": "MCR",
    "monai_voxelmorph": "MONAI VoxelMorph", "monai_localnet": "MONAI LocalNet", "one_by_one": "one by one",
    "all_stages": "all stages", "identity": "Identity", "affine": "Affine", "ants_syn": "ANTs SyN",
    "convexadam": "ConvexAdam", "elastix_bspline": "elastix B-spline",
}  # fmt: skip


class What(NamedTuple):
    """What a run is, as far as its files tell: a method, or a network and its cascade."""

    kind: str = ""  # VoxelMorph CR
    n: int | None = None
    r: int | None = None
    details: Mapping[str, str] = MappingProxyType({})  # more options, such as `loss.lambda1`

    @property
    def title(self) -> str:
        """The kind with n and, unless it is 1, r; empty if nothing is known."""
        words = [f"n={self.n}", f"r={self.r}" if self.r not in (None, 1) else ""] if self.kind and self.n else []
        return " ".join(filter(None, [self.kind, *words]))


def what_is(told: Mapping[str, Any]) -> What:
    """Tell what a run is by the options `method`, or `model`, `cascade`, `n`, `r`, `loss` and so on.

    >>> what_is({"model": {"name": "voxelmorph"}, "cascade": "cr", "n": 2, "r": 3}).title
    'VoxelMorph CR n=2 r=3'
    """
    details = {key: text for telling in _TELLING if telling in told for key, text in _flat(telling, told[telling])}
    n, r = (told.get(key) if isinstance(told.get(key), int) else None for key in ("n", "r"))
    if "method" in told or "model" not in told:
        return What(_called(told.get("method", "")), n, r, details)
    stages = told["cascade"].get("stages") if isinstance(told.get("cascade"), Mapping) else None
    networks = stages if isinstance(stages, list) and stages else [told["model"]]
    both = "+".join(dict.fromkeys(map(_called, networks))), _called(told.get("cascade"))
    n = len(networks) if n is None else n  # as a cascade takes it
    return What(" ".join(both) if n else "Affine network", n, r, details)


def what_was_evaluated(folder: Path, summary: Mapping[str, Any]) -> What:
    """Tell what an evaluation is of: as its summary says or, of an older version, the config of the training."""
    trained = summary.get(TRAINED)
    for place in (folder, Path(str(summary.get("checkpoint"))).parent.parent):
        if not isinstance(trained, dict) and (place / CONFIG).is_file():
            config = read_yaml(place / CONFIG, EVALUATE)
            trained = config if "model" in config else None
    return what_is((trained or {}) | {key: summary[key] for key in ("method", "n", "r", "repeat") if key in summary})


def run_names(whats: Sequence[What], folders: Sequence[Path]) -> list[str]:
    """Name runs by their titles, those of one title by what tells them apart too: options, else their folders.

    Options are added in the order of model, cascade, loss, data, seed, steps, as long as they tell more runs apart.
    """
    names = [what.title for what in whats]
    for title in {name for name in names if name and names.count(name) > 1}:
        same, keys = [what.details for what in whats if what.title == title], list[str]()
        known = [key for key in varied(same) if all(key in one for one in same)]  # older runs told less of themselves
        for key in known:
            if len({described(one, [*keys, key]) for one in same}) > len({described(one, keys) for one in same}):
                keys.append(key)
        longer = [f"{title} {described(what.details, keys)}".strip() for what in whats]
        names = [longer[place] if what.title == title else names[place] for place, what in enumerate(whats)]
    both = zip(names, folder_names(folders), strict=True)
    return [name if name and names.count(name) == 1 else f"{name}, {place}".lstrip(", ") for name, place in both]


def titled(title: str, overrides: Mapping[str, str], keys: Sequence[str]) -> str:
    """Add overrides of these keys to a title, without those that it tells itself.

    >>> titled("VTN CR n=2", {"n": "2", "seed": "1"}, ["n", "seed"])
    'VTN CR n=2 seed=1'
    """
    return f"{title} {described(overrides, [key for key in keys if not title or key not in _IN_TITLE])}".strip()


def _called(spec: Any) -> str:
    name = str(spec.get("name") if isinstance(spec, Mapping) else spec)
    return _TITLES.get(name, name)


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return [(key, str(value))]
    return [pair for name, one in value.items() for pair in _flat(key if name == "name" else f"{key}.{name}", one)]

"""MONAI's dictionary transforms by name and options, as a config has them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from monai.transforms import Compose, MapTransform
from monai.transforms.croppad import dictionary as croppad
from monai.transforms.intensity import dictionary as intensity
from monai.transforms.smooth_field import dictionary as smooth_field
from monai.transforms.spatial import dictionary as spatial
from monai.utils.enums import GridSampleMode

from regcascade.utils.registry import Spec, check_options, did_you_mean

IMAGE, LABEL = "image", "label"
# Whoever names a transform gets none that reads or writes files or calls a function that it is given.
KNOWN: dict[str, type[MapTransform]] = {
    name: cls
    for module in (intensity, spatial, croppad, smooth_field)
    for name, cls in vars(module).items()
    if inspect.isclass(cls) and issubclass(cls, MapTransform) and name == cls.__name__ and cls is not MapTransform
}
del KNOWN["GridDistortiond"]  # it leaves the affine as it was, so landmarks would stay behind
_OF_IMAGES_ALONE = {name for name in KNOWN if KNOWN[name].__module__ == intensity.__name__}


def build_monai(spec: Spec | Sequence[Spec], option: str) -> Compose:
    """Build a chain of MONAI's dictionary transforms for the keys `image` and `label`; a scan may lack the latter.

    Unless the options name `keys`, transforms of intensities change the image and all others both; labels are sampled
    by nearest.

    Args:
        spec: a name, a mapping with `name` and MONAI's options, or a list of these that are applied in turn.
        option: what the user calls it, for messages.

    Raises:
        ValueError: naming the option, for an unknown transform, option or value.

    >>> build_monai(["ScaleIntensityd", {"name": "Flipd", "spatial_axis": 0}], "data.transforms").transforms[1].keys
    ('image', 'label')
    """
    listed = [spec] if isinstance(spec, str | Mapping) else list(spec)
    return Compose([_build(one, option) for one in listed])


def moves_voxels(transforms: Compose) -> bool:
    """Whether any of the transforms changes where tissue lies, so that points would have to follow."""
    return any(type(transform).__name__ not in _OF_IMAGES_ALONE for transform in transforms.transforms)


def apply_monai(transforms: Compose, scan: dict[str, Any], option: str) -> dict[str, Any]:
    """Apply transforms to the volumes of a scan, which must keep their sides.

    Raises:
        ValueError: naming the option, if one fails or changes the size.
    """
    sides = scan[IMAGE].shape
    try:
        changed: Any = transforms(scan)
    # MONAI wraps whatever a transform raises.
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{option} cannot be applied: {error.__cause__ or error}") from error
    if not isinstance(changed, dict) or any(volume.shape != sides for volume in changed.values()):
        raise ValueError(f"{option} changes the size of the scan, {tuple(sides[1:])}: leave out what crops or resizes.")
    return changed


def _build(spec: object, option: str) -> MapTransform:
    given = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
    name = given.pop("name", None)
    if name not in KNOWN:
        hint = did_you_mean(str(name), KNOWN)
        raise ValueError(
            f"{option}: {name or spec!r} is no dictionary transform of MONAI's that fits here.{hint} Give a "
            "name such as ScaleIntensityd, or {name: ..., OPTION: VALUE}, of monai.transforms' intensity, spatial, "
            "crop and pad, or smooth field ones."
        )
    cls = KNOWN[name]
    check_options(f"{option}: {name}", given, cls, reserved=("allow_missing_keys",))
    parameters = inspect.signature(cls).parameters
    given.setdefault("keys", [IMAGE] if name in _OF_IMAGES_ALONE else [IMAGE, LABEL])
    if not set(given["keys"]) <= {IMAGE, LABEL}:
        raise ValueError(f"{option}: {name}: keys={given['keys']} is not valid: give {IMAGE} and {LABEL}, or one.")
    if "mode" in parameters and cls.__module__ in (spatial.__name__, smooth_field.__name__):
        linear = "bilinear" if parameters["mode"].default in tuple(GridSampleMode) else "trilinear"
        modes = {IMAGE: linear, LABEL: "nearest"}
        given.setdefault("mode", [modes[key] for key in given["keys"]])
    try:
        return cls(**given, allow_missing_keys=True)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{option}: {name} does not take these options: {error}") from error

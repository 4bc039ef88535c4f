"""Valid values of options, copied from modules that import torch; a test compares them."""

from regcascade.report.paper.experiments import CONF

UNITS = ("voxels", "ras", "lps")
FORMATS = ("itk", "learn2reg")
EXPORTS = ("torch-export", "onnx", "monai-bundle")
PRECISIONS = ("32", "bf16", "16")
REFINE_OF = ("flow", "weights")
REFINE_LOSSES = ("trained", "lncc")
INITIALS = {
    "trained": "as in training, each scan prepared by itself, so that their grids lie over one another",
    "none": "where their headers put them",
    "centres": "the centres of their fields of view together",
    "moments": "the centres of gravity of their intensities together",
    "affine": "an affine map, found by correlation; where that goes astray the best of the above but the first",
}
RECIPES = ("brain", "generic", "liver")
RECIPES_OF_RCN = ("liver", "brain")
STORED = ("float32", "float16", "uint8")
SCAN_COLUMNS = ("name", "image", "labels", "mask", "points", "series", "group")
WORST_PAIRS = 10


def in_group(group: str) -> list[str]:
    """List the names of a config group, such as `model`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))

"""`regcascade import`: turn published weights into a checkpoint."""

import argparse
import shlex

from regcascade.cascades.published import SIZE_OF_VOXELMORPH, read_rcn, read_voxelmorph
from regcascade.cli.console import label_names, say
from regcascade.data.options import check_size


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if not options.file.is_file():
        raise ValueError(f"There is no file {options.file}.")
    if not options.out.parent.is_dir():
        raise ValueError(f"--out {options.out}: there is no folder {options.out.parent}.")
    size = None if options.size is None else check_size("--size", options.size)
    if options.kind == "voxelmorph":
        width, level = options.window
        model = read_voxelmorph(options.file, size or SIZE_OF_VOXELMORPH, (width, level))
    else:
        model = read_rcn(options.file, size, options.recipe)
    model.write(options.out, label_names(options.label_names))
    count = sum(weight.numel() for weight in model.weights.values())
    parts = ["python", "train.py", f"init={options.out}", f"cascade={model.cascade['name']}"]
    if "stages" in model.cascade:
        stages = (",".join(f"{key}:{value}" for key, value in spec.items()) for spec in model.cascade["stages"])
        parts.append(f"cascade.stages=[{','.join('{' + stage + '}' for stage in stages)}]")
    else:
        chosen = [f"model{'' if key == 'name' else '.' + key}={value}" for key, value in model.model.items()]
        parts += [*chosen, f"n={model.n}"]
    parts.append(f"affine={model.affine['name']}")
    say(f"Written: {options.out} ({count:,} parameters).", f"Train on from it: {shlex.join(parts)}")

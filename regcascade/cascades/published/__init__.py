"""Published weights of others, read into checkpoints of regcascade without TensorFlow."""

from regcascade.cascades.published.conversion import Published
from regcascade.cascades.published.rcn import RECIPES_OF_RCN, read_rcn
from regcascade.cascades.published.voxelmorph import SIZE_OF_VOXELMORPH, read_voxelmorph

__all__ = ["RECIPES_OF_RCN", "SIZE_OF_VOXELMORPH", "Published", "read_rcn", "read_voxelmorph"]

"""The preprocessed HDF5 files of RCN's authors, with their JSON."""

from regcascade.data.datasets.rcn.dataset import RcnH5Data

__all__ = ["RcnH5Data"]

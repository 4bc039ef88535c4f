"""Scans and pairs of scans: data sets, preprocessing, pair sampling, augmentation, the data module."""

from regcascade.data.build import build_data, options_as_trained, options_of
from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.module import RegistrationData
from regcascade.data.splits import Split

__all__ = [
    "DATA_SETS", "Case", "CaseSet", "DataSet", "RegistrationData", "Split", "build_data", "names", "options_as_trained",
    "options_of",
]  # fmt: skip


def names() -> list[str]:
    """List the names of the data sets."""
    return DATA_SETS.names()

"""Scans and pairs of scans: data sets, preprocessing, pair sampling, augmentation, the data module."""

from regcascade.data.build import build_data, options_of
from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.base import DATA_SETS, DataSet
from regcascade.data.datasets.datalist import DatalistData
from regcascade.data.datasets.decathlon import DecathlonData
from regcascade.data.datasets.learn2reg import Learn2RegData
from regcascade.data.datasets.pair_tables import PairsData
from regcascade.data.datasets.phantom import PhantomData
from regcascade.data.datasets.prepared import PreparedData
from regcascade.data.datasets.rcn.dataset import RcnH5Data
from regcascade.data.datasets.subjects import SubjectsData
from regcascade.data.module import RegistrationData
from regcascade.data.splits import Split

__all__ = [
    "DATA_SETS",
    "Case",
    "CaseSet",
    "DataSet",
    "DatalistData",
    "DecathlonData",
    "Learn2RegData",
    "PairsData",
    "PhantomData",
    "PreparedData",
    "RcnH5Data",
    "RegistrationData",
    "Split",
    "SubjectsData",
    "build_data",
    "names",
    "options_of",
]


def names() -> list[str]:
    """The names of the data sets."""
    return DATA_SETS.names()

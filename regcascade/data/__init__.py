"""Scans and pairs of scans: data sets, preprocessing, pair sampling, augmentation, the data module."""

from regcascade.data.case import Case, CaseSet
from regcascade.data.datasets.decathlon import DecathlonData
from regcascade.data.datasets.learn2reg import Learn2RegData
from regcascade.data.datasets.pair_tables import PairsData
from regcascade.data.datasets.phantom import PhantomData
from regcascade.data.datasets.prepared import PreparedData
from regcascade.data.datasets.rcn.dataset import RcnH5Data
from regcascade.data.datasets.subjects import SubjectsData
from regcascade.data.module import DATA_SETS, RegistrationData
from regcascade.utils.registry import Spec

__all__ = [
    "DATA_SETS",
    "Case",
    "CaseSet",
    "DecathlonData",
    "Learn2RegData",
    "PairsData",
    "PhantomData",
    "PreparedData",
    "RcnH5Data",
    "RegistrationData",
    "SubjectsData",
    "build_data",
    "names",
]


def build_data(spec: Spec) -> RegistrationData:
    """The data module of a spec: a name, or a mapping with `name` and options, as `conf/data/*.yaml` lists
    them.

    Raises:
        ValueError: for an unknown data set, option or value, or data that is not as it should be.
    """
    name, options = DATA_SETS.options(spec)
    return DATA_SETS.get(name)(**options)


def names() -> list[str]:
    """The names of the data sets."""
    return DATA_SETS.names()

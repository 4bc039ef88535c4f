"""Affine alignments that go astray."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from regcascade.inference import RegisterOptions, register
from regcascade.inference import initial as module

ASTRAY = {
    "mirrored": (np.diag([-1.0, 1, 1, 1]), "it mirrors the scan"),
    "collapsed": (np.diag([0.05, 1, 1, 1]), "changes lengths by a factor of 0.05"),
    "blown up": (np.diag([1.0, 1, 3, 1]), "changes lengths by a factor of 3"),
    "off": (np.array([[1.0, 0, 0, 25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), r"CC .*, and .* by"),
}


@pytest.fixture(scope="module")
def scans(phantoms):
    return phantoms / "fixed.nii.gz", phantoms / "moving.nii.gz"


@pytest.fixture(scope="module")
def plain(scans, checkpoint):
    """The same registration from each plain start."""
    return {
        name: register(*scans, checkpoint, RegisterOptions(initial=name)) for name in ("none", "centres", "moments")
    }


@pytest.mark.parametrize("how", ASTRAY)
def test_an_alignment_that_went_astray_gives_way_to_the_best_plain_start(how, scans, checkpoint, plain, monkeypatch):
    affine, why = ASTRAY[how]
    monkeypatch.setattr(module, "align", lambda *_: affine)
    result = register(*scans, checkpoint, RegisterOptions(initial="affine"))
    (warning,) = [each for each in result.report["warnings"] if "astray" in each]
    assert f"--initial {result.report['initial']} took its place" in warning
    assert re.search(why, warning)
    assert_allclose(result.transform.affine, plain[result.report["initial"]].transform.affine)
    assert result.report["cc_initial"] >= max(other.report["cc_initial"] for other in plain.values()) - 0.02


def test_an_alignment_that_gives_up_does_too(scans, checkpoint, monkeypatch):
    def gives_up(*_):
        raise ValueError("the affine alignment failed: too few samples")

    monkeypatch.setattr(module, "align", gives_up)
    report = register(*scans, checkpoint, RegisterOptions(initial="affine")).report
    assert any("astray (the affine alignment failed: too few" in warning for warning in report["warnings"])


def test_a_good_alignment_is_kept_and_says_nothing(scans, checkpoint):
    report = register(*scans, checkpoint, RegisterOptions(initial="affine")).report
    assert report["initial"] == "affine" and not any("astray" in warning for warning in report["warnings"])

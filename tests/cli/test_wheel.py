"""The wheel holds all that the commands need, away from the repository: configs, lists, templates, trained models."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from regcascade.utils.version import __version__

ROOT = Path(__file__).parents[2]
TINY = [
    "data.size=[16,16,16]", "data.train=2", "data.validation=2", "data.validation_pairs=1", "data.pairs_per_epoch=2",
    "trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.max_time=null", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "n=1",
]  # fmt: skip
MINE = "# @package _global_\nseed: 7\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing is left in the repository."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("building a wheel needs setuptools 77 or newer")
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "regcascade", copy / "regcascade", ignore=shutil.ignore_patterns("__pycache__"))
    _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."], copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    assert wheel.name.startswith(f"regcascade-{__version__}-")
    files = {path for path in (ROOT / "regcascade").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("regcascade/")}
    assert packed == expected


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel, beside the other packages of this one."""
    environment = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], environment)
    paths = {key: sysconfig.get_path(key, "venv", {"base": str(environment)}) for key in ("purelib", "scripts")}
    # As a plain path, so that its own .pth files, of which one may name the repository, do not count.
    (Path(paths["purelib"]) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = next(Path(paths["scripts"]).glob("python*"))
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)], environment)
    return Path(paths["scripts"])


@pytest.mark.long
def test_the_commands_run_from_a_wheel_in_any_folder(installed, tmp_path):
    def regcascade(*arguments: str) -> str:
        return _run([str(installed / "regcascade"), *arguments], tmp_path)

    where = _run([str(installed / "python"), "-c", "import regcascade; print(regcascade.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert regcascade("--version").strip() == f"regcascade {__version__}"
    assert "808.8" in regcascade("model", "vtn", "-n", "2", "--affine", "learned")
    assert "drnet/5" in regcascade("table", "--list")
    assert "experiment=rcn/vtn_n10" in regcascade("table", "rcn/2")
    assert "largest n" in regcascade("profile", "n=1", "size=[16,16,16]", "--no-run", "cascade=cr")

    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/mine.yaml").write_text(MINE)
    regcascade("train", "--config-dir", "mine", "experiment=mine", *TINY)
    (run,) = (path.parent for path in tmp_path.glob("runs/*/*/config.yaml"))
    assert "seed: 7" in (run / "config.yaml").read_text()
    assert json.loads((run / "git.json").read_text())["commit"] is None
    regcascade("evaluate", f"checkpoint={run / 'checkpoints/last.ckpt'}", "paths.run=again")
    assert (tmp_path / "again/pairs.csv").is_file()
    assert "Written" in regcascade("compare", str(run), "again", "--names", "A", "B")
    assert "Written" in regcascade("report", str(run), "--out", "report.html", "--worst", "1")
    assert "Table 2" in regcascade("table", "rcn/2", "--runs", "runs")

    assert _prepared(regcascade, tmp_path)
    scans = [str(tmp_path / f"scans/{k}.nii.gz") for k in range(2)]
    said = regcascade("register", *scans, "--checkpoint", "hippocampus", "--out", "registered", "--device", "cpu")
    assert "Written to registered" in said


@pytest.mark.long
def test_the_ranks_of_a_training_from_a_wheel_share_its_folder(installed, tmp_path):
    _run([str(installed / "regcascade"), "train", *TINY, "trainer=ddp", "trainer.devices=2"], tmp_path)
    (run,) = (path.parent for path in tmp_path.glob("runs/*/*/config.yaml"))
    assert (run / "checkpoints/last.ckpt").is_file() and (run / "summary.json").is_file()
    assert len([*tmp_path.glob("runs/*/*")]) == 1


def _prepared(regcascade, folder: Path) -> bool:
    """Make two small scans ready by a list that comes with the package."""
    nibabel, numpy = pytest.importorskip("nibabel"), pytest.importorskip("numpy")
    (folder / "scans").mkdir()
    generator = numpy.random.default_rng(0)
    for k in range(2):
        volume = generator.random((40, 50, 40), dtype="float32")
        nibabel.save(nibabel.Nifti1Image(volume, numpy.eye(4)), folder / f"scans/{k}.nii.gz")
    regcascade(
        "prepare", "scans", "--list", "hippocampus", "--images", "*.nii.gz", "--out", "ready", "--recipe", "generic",
        "--set", "size=[16,16,16]", "--workers", "1",
    )  # fmt: skip
    return len([*folder.glob("ready/cases/*.safetensors")]) == 2


def _run(command: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

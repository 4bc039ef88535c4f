"""What the parsers offer is what there is, and help comes without the slow imports."""

import importlib
import subprocess
import sys

import pytest

import regcascade
from regcascade import cascades, networks
from regcascade.cascades.published import RECIPES_OF_RCN
from regcascade.cli.main import make_parser
from regcascade.cli.parsers import choices
from regcascade.data.io.point_tables import UNITS
from regcascade.data.io.scan_lists import COLUMNS
from regcascade.data.preprocessing.case_files import STORED
from regcascade.data.preprocessing.recipes import RECIPES
from regcascade.inference import export, initial, instance_optimization, outputs, pipeline
from regcascade.report.html.page import WORST

SLOW = ("torch", "lightning", "monai", "pandas", "scipy", "matplotlib", "SimpleITK")
COMMANDS = (
    "train", "evaluate", "model", "profile", "import", "import rcn", "export", "prepare", "register", "apply", "invert",
    "compare", "table", "figures", "report",
)  # fmt: skip


def slow_imports(code: str) -> set[str]:
    """Those of `SLOW` that a fresh interpreter has imported after some code, whether or not that exits."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('|', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(SLOW) & set(done.stdout.rpartition("|")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([*of.split(), "--help"] for of in COMMANDS)])
def test_help_and_version_import_nothing_slow(arguments):
    assert slow_imports(f"from regcascade.cli.main import main; main({arguments})") == set()


@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize("argument", ["--help", "--cfg=job"])
def test_help_of_hydra_imports_nothing_slow(name, argument):
    script = f"sys.argv = ['{name}.py', '{argument}']; from regcascade.cli.{name} import main; main()"
    assert slow_imports(script) == set()


def test_importing_the_package_imports_nothing_slow_and_has_its_functions():
    assert slow_imports("import regcascade") == set()
    assert slow_imports("import regcascade; regcascade.build") >= {"torch"}
    assert regcascade.build is cascades.build
    assert {"build", "load", "register", "__version__"} <= set(dir(regcascade))
    with pytest.raises(AttributeError, match="no_such_function"):
        regcascade.no_such_function  # noqa: B018


def test_every_command_of_the_parser_has_a_module_that_runs_it():
    (commands,) = (action for action in make_parser()._actions if action.dest == "command")
    for name, parser in commands.choices.items():
        module = parser.get_default("command") or name
        assert callable(importlib.import_module(f"regcascade.cli.commands.{module}").run), name


def test_the_choices_written_out_are_those_there_are():
    assert choices.in_group("model") == networks.names()
    assert choices.in_group("cascade") == cascades.names()
    assert set(choices.in_group("affine")) == set(cascades.AFFINE_CHOICES)
    assert list(choices.RECIPES) == RECIPES.names()
    assert choices.RECIPES_OF_RCN == RECIPES_OF_RCN
    assert tuple(STORED) == choices.STORED
    assert choices.SCAN_COLUMNS == COLUMNS
    assert tuple(UNITS) == choices.UNITS
    assert choices.INITIALS == initial.INITIALS
    assert choices.REFINE_OF == instance_optimization.WHATS
    assert choices.REFINE_LOSSES == instance_optimization.LOSSES
    assert choices.FORMATS == outputs.FORMATS
    assert tuple(export.SUFFIXES) == choices.EXPORTS
    assert tuple(pipeline.PRECISIONS) == choices.PRECISIONS
    assert choices.WORST_PAIRS == WORST

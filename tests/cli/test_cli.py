"""The `regcascade` command."""

import re

import pytest
import yaml

from regcascade.cli.main import main
from regcascade.cli.run_folder import composed
from regcascade.report.paper.experiments import CONF


def test_model_prints_the_size_as_drnet_counts_it(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["model", "vtn", "-n", "2", "--affine", "learned"])
    output = capsys.readouterr().out
    assert "14,166,288" in output
    assert "70,670,694" in output  # 14,166,288 + 2 x 28,252,203
    assert "808.8" in output  # printed as 808 in Table 5


def test_an_unknown_network_ends_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as end:
        main(["model", "vtm"])
    assert end.value.code == 1
    assert "Did you mean 'vtn'" in capsys.readouterr().err


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "model" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_of_hydras_commands_names_every_option_and_group_without_hydra(name, capsys):
    main([name, "--help"])
    said = capsys.readouterr().out
    named = set(re.findall(r"^(\w+)(?: \[\w+\])?:", said, re.MULTILINE))
    config = composed(CONF, name, [])
    assert set(config) - {"reproduces"} <= named
    options = yaml.safe_load(said.partition("== Options")[2].partition("==\n")[2].partition("\n==")[0])
    folders = options.pop("paths")  # whose interpolations are resolved in the config
    assert folders.keys() == config["paths"].keys()
    assert options and all(config[key] == value for key, value in options.items())
    assert {"experiment", "sweep"} <= named or name == "evaluate"
    assert "model [voxelmorph]: drnet, " in said or "data [trained]: brain, " in said
    assert f"\nregcascade {name} " in said and f"python {name}.py" not in said


@pytest.mark.parametrize("arguments", [["model", "vtn", "n=2"], ["profile", "n=2", "--no-ran"]])
def test_arguments_that_mean_nothing_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err

"""`regcascade profile`: what it prints, and bad input."""

import pytest
import torch

from regcascade import build
from regcascade.cli.main import main
from regcascade.losses import Objective
from regcascade.training.memory_estimate import Step
from regcascade.training.optimizer import Optimization
from regcascade.training.profiler import PARTS, profile

SIZE = (16, 16, 32)


def numbers(line: str) -> list[str]:
    return line.split()


def test_a_profile_adds_up():
    cascade = build("voxelmorph", "mcr", 1)
    objective = Objective(alpha=0.5)
    measured = profile(cascade, objective, Optimization().optimizer(cascade.parameters()), SIZE, 2, "bf16-mixed", 1)
    assert tuple(measured.parts) == PARTS
    assert all(seconds > 0 for seconds in measured.parts.values())
    assert sum(measured.parts.values()) <= measured.step
    assert measured.inference > 0 and measured.peak is None


def test_it_prints_times_memory_and_what_fits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["profile", "cascade=cr", "n=2", f"size={list(SIZE)}".replace(" ", ""), "--repeats", "1", "--memory", "1"])
    printed = capsys.readouterr().out
    assert "n=2, 16x16x32, batch 1, 32-true, recompute=none" in printed
    lines = {row[0]: row for row in map(numbers, printed.splitlines()) if row}
    assert {"networks", "warps", "losses", "backward", "optimizer"} <= set(lines)
    step = Step(lambda n: build("voxelmorph", "cr", n), Objective(), SIZE)
    footprint, prediction = step.footprint(2), step.prediction()
    assert lines["activations"][1] == f"{footprint.activations / 2**20:,.1f}"
    assert lines["none"][-1] == str(prediction.largest_n(2.0**30))
    assert int(lines["stage"][-1]) > int(lines["none"][-1]) > 10


def test_nothing_is_run_if_only_the_estimate_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr("regcascade.cli.commands.profile.profile", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(["profile", "n=1", "--no-run", "size=[128,128,128]", "--memory", "0.5", "cascade=cr"])  # in any order
    printed = capsys.readouterr().out
    assert "recompute" in printed
    assert next(numbers(line)[-1] for line in printed.splitlines() if line.startswith("none ")) == "0"


def test_a_step_that_does_not_fit_is_not_run(capsys, monkeypatch):
    monkeypatch.setattr("regcascade.cli.commands.profile.profile", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr("regcascade.cli.commands.profile.free_memory", lambda _: 2.0**20)
    with pytest.raises(SystemExit):
        main(["profile", "n=1", "cascade=cr", f"size={list(SIZE)}".replace(" ", "")])
    assert "A training step of n=1 takes about 0.0 GiB, and 0.0 GiB are free here: --no-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=voxelmorf"], "voxelmorf"),
        (["trainer.recompute=all"], "trainer.recompute=all is not valid. Known: none, stage."),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "a CPU has no fp16 training"),
        (["optimizer.lr=auto"], "optimizer.lr=auto: there is no search for a learning rate. Give one"),
        (["size=128"], "size=128 is not valid: give three sides"),
        (["size=[128,128]"], "size=[128, 128] is not valid: give three sides"),
        (["--repeats", "0"], "--repeats 0: 1 or more."),
        (["--memory", "-1"], "--memory -1.0: GiB, above 0."),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["profile", *arguments])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["experiment=drnet/vm_mcr2"], "n=2, 128x128x128, batch 1"),  # on prepared scans, which have their own size
        (["experiment=drnet/vm_mcr2", "size=[32,40,48]"], "n=2, 32x40x48, batch 1"),
    ],
)
def test_experiments_are_profiled_by_name(arguments, said, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["profile", *arguments, "--no-run", "--memory", "32"])
    assert said in capsys.readouterr().out

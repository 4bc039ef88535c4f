"""Runs the commands without a process of their own, which takes a tenth of the time."""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def in_process(monkeypatch) -> Callable[[str, list[str], Path], tuple[int, str]]:
    """A function from `train` or `evaluate`, arguments and a folder to the exit status and all output."""
    from hydra.core.global_hydra import GlobalHydra

    def run(script: str, arguments: list[str], folder: Path) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        GlobalHydra.instance().clear()
        output = io.StringIO()
        status = 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                importlib.import_module(f"regcascade.cli.{script}").main()
            except SystemExit as end:
                status = int(end.code or 0)
        return status, output.getvalue()

    return run


@pytest.fixture
def refusal(in_process) -> Callable[[str, list[str], Path], str]:
    """`in_process` of what cannot be done: a function to all output, which has no traceback."""

    def refuse(script: str, arguments: list[str], folder: Path) -> str:
        status, output = in_process(script, arguments, folder)
        assert status != 0, output
        assert "Traceback" not in output, output
        return output

    return refuse


@pytest.fixture
def in_process_train(in_process) -> Callable[[list[str], Path], tuple[int, str]]:
    """`in_process` of `train`."""
    return lambda arguments, folder: in_process("train", arguments, folder)

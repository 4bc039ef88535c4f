"""What ends a training or an evaluation from outside, in words: a process that was killed, a disk that is full."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from regcascade.report.runs.sweeps import is_job
from regcascade.utils.files import NotWritten


class LostProcessError(ValueError):
    """Another process of the same command is gone."""


class Terminated(SystemExit):
    """SIGTERM has ended a training; exits with the status that shells give such processes.

    Args:
        text: what to tell.
    """

    def __init__(self, text: str) -> None:
        super().__init__(128 + 15)
        self.text = text


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WORKER = re.compile(r"DataLoader worker.*(exited unexpectedly|is killed by signal: (?P<signal>[\w ]+))", re.DOTALL)
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Socket Timeout|recvValue failed|"
    r"failed to recv|Connection was likely closed",
    re.IGNORECASE,
)
_LOST_WORDS = (
    "Another process of this command ended, or its machine cannot be reached: its own message, above or in its log, "
    "says why; one that was killed leaves none, and a likely cause is memory."
)


@contextlib.contextmanager
def explained(workers: int, going_on: Callable[[], str]) -> Iterator[None]:
    """Turn such an error into a ValueError that says what to do.

    Args:
        workers: `data.num_workers`.
        going_on: says, after the error, what is kept and how to go on, in a sentence.

    Raises:
        Terminated: with such a sentence, where Lightning has ended a training for that signal.
    """
    from lightning.pytorch.utilities.exceptions import SIGTERMException  # which a command that only helps never needs

    try:
        yield
    except NotWritten as error:
        raise ValueError(f"{error} {going_on()}") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ValueError(
            f"{error.filename or 'A file'} could not be written ({error.strerror}). Make room. {going_on()}"
        ) from error
    except RuntimeError as error:
        if text := _killed_worker(str(error), workers):
            raise ValueError(f"{text} {going_on()}") from error
        if _LOST.search(str(error)):
            raise LostProcessError(f"{_LOST_WORDS} {going_on()}") from error
        raise
    except SIGTERMException as end:
        raise Terminated(f"Ended by SIGTERM. {going_on()}") from end


def resuming_training(checkpoints: Path) -> str:
    """How to go on with a training that keeps its checkpoints in a folder, in a sentence."""
    import torch  # as above

    way = "The command of the sweep" if is_job(checkpoints.parent) else "ckpt_path=last"
    last = checkpoints / "last.ckpt"
    if not last.is_file():
        return "Nothing was saved yet, so that there is no checkpoint to go on from."
    try:
        step = torch.load(last, map_location="cpu", mmap=True, weights_only=True)["global_step"]
    except (RuntimeError, OSError, ValueError, KeyError):  # the error to tell is another
        return f"{way} goes on from {last}."
    return f"{way} goes on from step {step}, where {last} is."


def resuming_evaluation(folder: Path) -> str:
    """How to go on with an evaluation that writes to a folder, in a sentence."""
    return f"The pairs measured so far are kept: the same command with paths.run={folder} goes on with the others."


def evaluating_again(folder: Path, checkpoint: Path | None) -> str:
    """How to do the evaluation that ends a training again, in a sentence."""
    again = "" if checkpoint is None else f": python evaluate.py checkpoint={checkpoint} measures it"
    return f"The training itself has ended and is kept in {folder}{again}."


def _killed_worker(error: str, workers: int) -> str | None:
    if found := _WORKER.search(error):
        how = f" ({found['signal'].strip()})" if found["signal"] else ""
        return (
            f"One of the processes that read scans (data.num_workers={workers}) was killed{how}. A likely cause is "
            "that memory ran out: set data.num_workers=0 or fewer, or data.cache=none, or for a full /dev/shm give it "
            "more."
        )
    return None

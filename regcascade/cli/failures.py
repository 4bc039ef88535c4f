"""Messages for what ends a run from outside: a killed process, a full disk, SIGTERM; and how to resume it."""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from regcascade.cli.hydra_app import LostProcessError, Terminated
from regcascade.report.runs.sweeps import is_job
from regcascade.utils.files import NotWritten

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WORKER = re.compile(r"DataLoader worker.*(exited unexpectedly|is killed by signal: (?P<signal>[\w ]+))", re.DOTALL)
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Socket Timeout|recvValue failed|"
    r"failed to recv|Connection was likely closed",
    re.IGNORECASE,
)


@contextlib.contextmanager
def explained(workers: int, how_to_resume: Callable[[], str]) -> Iterator[None]:
    """Raise such an end as an error that says what to do, with `how_to_resume` as its last sentence.

    Raises:
        ValueError: for a killed data worker (of `data.num_workers`) or rank, or a full disk.
        Terminated: if SIGTERM ended a training.
    """
    try:
        yield
    except NotWritten as error:
        raise ValueError(f"{error} {how_to_resume()}") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        file = error.filename or "A file"
        raise ValueError(f"{file} could not be written ({error.strerror}). Make room. {how_to_resume()}") from error
    except RuntimeError as error:
        if killed := _WORKER.search(str(error)):
            signal = f" ({killed['signal'].strip()})" if killed["signal"] else ""
            raise ValueError(
                f"One of the processes that read scans (data.num_workers={workers}) was killed{signal}. A likely cause "
                "is memory: set data.num_workers=0 or fewer, or data.cache=none, or enlarge /dev/shm if that is full. "
                f"{how_to_resume()}"
            ) from error
        if _LOST.search(str(error)):
            raise LostProcessError(
                "Another process of this command ended, or its machine cannot be reached. Its own message, above or "
                "in its log, says why. A killed process leaves none; a likely cause is memory. " + how_to_resume()
            ) from error
        raise
    except SIGTERMException as end:
        raise Terminated(f"Ended by SIGTERM. {how_to_resume()}") from end


def resuming_training(checkpoints: Path) -> str:
    """Say how to resume the training that writes to a folder of checkpoints."""
    way = "The command of the sweep" if is_job(checkpoints.parent) else "ckpt_path=last"
    last = checkpoints / "last.ckpt"
    if not last.is_file():
        return "Nothing was saved yet, so there is no checkpoint to resume."
    try:
        step = torch.load(last, map_location="cpu", mmap=True, weights_only=True)["global_step"]
    except (RuntimeError, OSError, ValueError, KeyError):  # the first error is the one to report
        return f"{way} resumes {last}."
    return f"{way} resumes at step {step}, where {last} is."

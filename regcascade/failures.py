"""What ends a training from outside of it, in words: a reading process that was killed, a rank that is gone."""

import contextlib
import re
from collections.abc import Iterator

_WORKER = re.compile(r"DataLoader worker.*(exited unexpectedly|is killed by signal: (?P<signal>[\w ]+))", re.DOTALL)
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Socket Timeout|recvValue failed|"
    r"failed to recv|Connection was likely closed",
    re.IGNORECASE,
)


@contextlib.contextmanager
def explained(workers: int) -> Iterator[None]:
    """Turn such an error into a ValueError that says what to do.

    Args:
        workers: `data.num_workers`.
    """
    try:
        yield
    except RuntimeError as error:
        text = _words(str(error), workers)
        if text is None:
            raise
        raise ValueError(text) from error


def _words(error: str, workers: int) -> str | None:
    if found := _WORKER.search(error):
        how = f" ({found['signal'].strip()})" if found["signal"] else ""
        return (
            f"One of the processes that read scans (data.num_workers={workers}) was killed{how}. A likely cause is "
            "that memory ran out: set data.num_workers=0 or fewer, or data.cache=none, or for a full /dev/shm give it "
            "more. ckpt_path=last goes on from the last checkpoint."
        )
    if _LOST.search(error):
        return (
            "Another process of this training ended, or its machine cannot be reached: its own message, above or in "
            "its log, says why; one that was killed leaves none, and a likely cause is memory. ckpt_path=last goes on "
            "from the last checkpoint."
        )
    return None

"""How Lightning's checkpoints reach the disk: whole or not at all."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from regcascade.utils.files import writing, written_whole


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, to the disk, and renames it; Lightning's own may cross file systems.

    A process killed while it writes leaves the checkpoint of before, and so does a disk that is full.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            NotWritten: if it cannot be written, naming the file and why.
        """
        path = Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary, temporary.open("wb") as file:
                _save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """Save with torch, of whose writer an error of the system comes out as the RuntimeError that followed it."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(cause := error.__context__, OSError):
            raise OSError(cause.errno, cause.strerror) from error
        raise

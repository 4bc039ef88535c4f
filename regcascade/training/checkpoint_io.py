"""Writing of Lightning's checkpoints: whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from regcascade.utils.files import writing, written_whole


class WholeCheckpoints(TorchCheckpointIO):
    """Write a checkpoint to a file beside it, sync it to the disk, and rename it.

    A killed process or a full disk leaves the previous checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            NotWritten: if it cannot be written, with the file and the reason.
        """
        path = Path(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary, temporary.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # which torch raises after an error of the system
                    if isinstance(cause := error.__context__, OSError):
                        raise OSError(cause.errno, cause.strerror) from error
                    raise
                file.flush()
                os.fsync(file.fileno())

"""How Lightning's checkpoints reach the disk: whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from regcascade.files import written_whole


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, to the disk, and renames it; Lightning's own may cross file systems.

    A process killed while it writes leaves the checkpoint of before, and so does a disk that is full.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            ValueError: if it cannot be written, naming the file and why.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            kept = "The one of before is kept. " if path.is_file() else ""
            raise ValueError(
                f"{path} could not be written ({error.strerror or error}). {kept}Make room, then go on with "
                "ckpt_path=last."
            ) from error

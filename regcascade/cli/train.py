"""`regcascade train` and `python train.py`: Hydra reads the config, `commands/train.py` does the work."""

import hydra
from omegaconf import DictConfig

from regcascade.cli.hydra_app import CONF, command, job


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _train(config: DictConfig) -> float | None:
    from regcascade.cli.commands.train import run  # imports wait until there is a config

    return job(run, config)


def main() -> None:
    """Run the command with the arguments of this process."""
    command(_train)


if __name__ == "__main__":
    main()

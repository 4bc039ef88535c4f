"""`regcascade evaluate` and `python evaluate.py`: Hydra reads the config, `commands/evaluate.py` does the work."""

import hydra
from omegaconf import DictConfig

from regcascade.cli.hydra_app import CONF, command, job


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def _evaluate(config: DictConfig) -> None:
    from regcascade.cli.commands.evaluate import run  # imports wait until there is a config

    job(run, config)


def main() -> None:
    """Run the command with the arguments of this process."""
    command(_evaluate)


if __name__ == "__main__":
    main()

"""Train a cascade: `python train.py model=drnet cascade=mcr n=3`; `--help` lists every option."""

from regcascade.cli.train import main

if __name__ == "__main__":
    main()

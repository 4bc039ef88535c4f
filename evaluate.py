"""Evaluate a checkpoint, or another method, over pairs of scans: `python evaluate.py checkpoint=FILE data=... r=2`."""

from regcascade.cli.evaluate import main

if __name__ == "__main__":
    main()

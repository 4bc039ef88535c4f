"""`python -m regcascade.cli` is `regcascade`."""

from regcascade.cli.main import main

main()

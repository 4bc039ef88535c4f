"""What the commands' parsers share."""

import argparse

Commands = argparse._SubParsersAction


def key_and_value(text: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE; raises ValueError if it is none."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"{text!r} is no KEY=VALUE.")
    return key, value

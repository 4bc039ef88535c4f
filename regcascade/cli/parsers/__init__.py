"""Parsers of the commands. They import nothing slow, such as torch, so that help is fast."""

"""The parsers of the commands. They import neither torch nor anything else that is slow, so that help comes at once.

`cli/commands/` has a module of the same name for each, whose `run` does the work.
"""

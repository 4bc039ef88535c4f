"""The commands of `regcascade`, a module each with `add`, which tells the parser of it."""

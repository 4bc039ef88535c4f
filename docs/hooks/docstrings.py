"""What the reference shows of docstrings."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^(>>> .*(?:\n.+)*)", re.MULTILINE)
TENSOR = re.compile(r"\w+\[Tensor, ['\"] ?(.+)['\"]\]")


class Docstrings(griffe.Extension):
    """Show examples as code, which Markdown would take for quotations, and say the shape of each alias of a tensor."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence every doctest."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\1\n```", obj.docstring.value)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Describe an alias, so that it has an entry that signatures link to."""
        if attr.docstring is None and (found := TENSOR.fullmatch(str(attr.value))):
            attr.docstring = griffe.Docstring(f"Tensor of the shape `({found[1].replace(' ', ', ')})`.")

"""The transforms that these tests share."""

from known_transforms import transform

__all__ = ["transform"]

"""The registered pair that is drawn."""

from registered_pairs import registered

__all__ = ["registered"]

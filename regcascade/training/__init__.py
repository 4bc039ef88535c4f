"""The Lightning module and all that a training needs."""

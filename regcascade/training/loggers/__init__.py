"""Where a training's measures go."""

"""Commands, the Hydra app, run folders and sweeps: the only place that sees a Hydra config."""

"""Options of trainings that take seconds on one core."""

PHANTOM = [
    "data.size=[16,18,20]", "data.train=4", "data.validation=3", "data.validation_pairs=2", "data.pairs_per_epoch=4",
]  # fmt: skip
ON_ONE_CORE = [
    "trainer.max_time=null", "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]  # fmt: skip


def steps(count: int) -> list[str]:
    """So many steps, and a validation after the last."""
    return [f"trainer.max_steps={count}", f"trainer.val_check_interval={count}"]

"""How a training runs, from the command line: recomputed, channels last; what is refused."""

import pytest
import torch

from regcascade.cascades.checkpoint import load, read

TINY = [
    "data.size=[16,18,20]", "data.train=4", "data.validation=2", "data.validation_pairs=1", "data.pairs_per_epoch=4",
    "trainer.max_steps=2", "trainer.max_time=null", "trainer.val_check_interval=2", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "cascade=cr", "n=2",
]  # fmt: skip


def trained(run, folder, *options):
    folder.mkdir()
    status, output = run([*TINY, *options], folder)
    assert status == 0, output
    (checkpoint,) = folder.glob("runs/*/*/checkpoints/last.ckpt")
    return checkpoint, output


def test_a_recomputed_training_learns_the_same(in_process_train, tmp_path):
    plain, _ = trained(in_process_train, tmp_path / "plain")
    again, _ = trained(in_process_train, tmp_path / "again", "trainer.recompute=stage", "trainer.channels_last=true")
    weights, others = read(plain).weights, read(again).weights
    assert list(weights) == list(others)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-5, msg=name)
    assert load(again).recompute == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trainer.recompute=stages"], "trainer.recompute=stages is not valid. Known: none, stage."),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: a CPU has no fp16 training."),
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true would round the flows"),
        (["cascade=mcr", "cascade.detach=true"], "cascade.detach=true with loss.smoothness_of=fields"),
    ],
)
def test_what_cannot_be_is_refused_before_training(in_process_train, tmp_path, options, message):
    status, output = in_process_train([*TINY, *options], tmp_path)
    assert status == 1
    assert message in " ".join(output.split())

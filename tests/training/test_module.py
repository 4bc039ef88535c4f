"""The Lightning module: what it logs, what it refuses, how the learning rate and the phases move."""

import lightning as L
import pytest
import torch

from regcascade import build
from regcascade.losses import Objective
from regcascade.training.module import NonFiniteLossError, RegistrationModule
from regcascade.training.optimizer import Optimization


def pairs(count: int = 2, labels: bool = True, nan: bool = False) -> dict:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, count, 1, 16, 18, 17, generator=generator)
    if nan:
        images[0, 1, 0, 3, 3, 3] = float("nan")
    batch = {
        "fixed": images[0], "moving": images[1],
        "fixed_spacing": torch.ones(count, 3), "moving_spacing": torch.ones(count, 3),
        "fixed_name": [f"f{k}" for k in range(count)], "moving_name": [f"m{k}" for k in range(count)],
    }  # fmt: skip
    if labels:
        batch["fixed_labels"], batch["moving_labels"] = ((image > 0.6).long() for image in images)
    return batch


def fit(module: RegistrationModule, tmp_path, batches: list[dict], **options) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=options.pop("max_steps", 4), max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
        **{"limit_val_batches": 1} | options,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer.fit(module, loader, loader)
    return trainer


def test_a_non_finite_loss_names_the_term_and_the_pairs(tmp_path):
    module = RegistrationModule(build(n=1), Objective())
    with pytest.raises(NonFiniteLossError, match=r"similarity.*fixed f0, moving m0; fixed f1, moving m1"):
        fit(module, tmp_path, [pairs(nan=True)])


def test_validation_logs_every_term_and_measure_as_the_mean_over_pairs(tmp_path):
    module = RegistrationModule(build(cascade="mcr", n=1), Objective(alpha=0.5, lambda2=1.0), labels=(1,))
    trainer = fit(module, tmp_path, [pairs()], max_steps=1)
    logged = {name for name in trainer.callback_metrics if name.startswith("val/")}
    terms = {"loss", "similarity", "similarity_half", "edge", "smoothness"}
    measures = {"dice", "dice_before", "cc", "cc_before", "folding_percent"}
    assert logged == {f"val/{name}" for name in terms | measures}
    batch = pairs()
    intersection = 2 * (batch["fixed_labels"] * batch["moving_labels"]).sum((1, 2, 3, 4))
    dice = intersection / (batch["fixed_labels"] + batch["moving_labels"]).sum((1, 2, 3, 4))
    assert trainer.callback_metrics["val/dice_before"].item() == pytest.approx(dice.mean().item(), abs=1e-6)


def test_scans_without_labels_have_no_dice(tmp_path):
    trainer = fit(RegistrationModule(build(n=1), Objective()), tmp_path, [pairs(labels=False)], max_steps=1)
    assert "val/dice" not in trainer.callback_metrics
    assert "val/loss" in trainer.callback_metrics


def test_a_loss_that_weighs_fields_the_cascade_lacks_is_refused_before_training():
    with pytest.raises(ValueError, match=r"loss\.alpha and loss\.beta.*cascade=mcr"):
        RegistrationModule(build(cascade="cr", n=1), Objective(alpha=0.5, beta=0.1))


def test_the_learning_rate_halves_at_the_steps_of_the_schedule(tmp_path):
    module = RegistrationModule(build(n=1), Objective(), Optimization(lr=1e-3, schedule="halving", halve_at=(2, 3)))
    seen = []
    module.on_train_batch_start = lambda batch, index: seen.append(module.optimizers().param_groups[0]["lr"])
    fit(module, tmp_path, [pairs()], max_steps=4)
    assert seen == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])


def test_the_cosine_falls_to_a_hundredth_by_the_end(tmp_path):
    optimization = Optimization(lr=1e-3, schedule="cosine")
    assert optimization.factor(0, lambda: 0.0) == pytest.approx(1)
    assert optimization.factor(0, lambda: 0.5) == pytest.approx(0.505)
    assert optimization.factor(0, lambda: 1.0) == pytest.approx(0.01)
    module = RegistrationModule(build(n=1), Objective(), optimization)
    fit(module, tmp_path, [pairs()], max_steps=4)
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(1e-5, rel=1e-3)


def test_the_learning_rate_warms_up():
    factors = [Optimization(warmup_steps=3).factor(step, lambda: 0.0) for step in range(5)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("cascade", [{"n": 2}, {"n": 2, "cascade": {"name": "cr", "share_weights": True}}])
def test_the_flow_heads_learn_at_their_own_multiple(cascade):
    module = RegistrationModule(build(**cascade), Objective(), Optimization(lr=1e-3, head_lr=10.0))
    groups = module.configure_optimizers()["optimizer"].param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in module.cascade.named_parameters():
        assert rates.pop(id(parameter)) == pytest.approx(1e-2 if ".heads." in name else 1e-3)
    assert not rates
    with pytest.raises(ValueError, match=r"optimizer\.head_lr=0"):
        Optimization(head_lr=0.0)


def test_one_by_one_trains_its_stages_in_turn(tmp_path):
    module = RegistrationModule(build(cascade="one_by_one", n=2), Objective(), Optimization(lr=1e-3))
    start = {name: weight.clone() for name, weight in module.cascade.state_dict().items()}
    trained, kept = [], []

    def note(*_):
        now = {name: weight.clone() for name, weight in module.cascade.state_dict().items()}
        trained.append({name.split(".")[1] for name, weight in now.items() if not weight.equal(start[name])})
        kept.append(now)

    module.on_train_batch_end = note
    fit(module, tmp_path, [pairs()], max_steps=4)
    assert trained == [{"0"}, {"0"}, {"0", "1"}, {"0", "1"}]
    fixed = [name for name in start if name.startswith("nets.0.")]
    assert all(kept[1][name].equal(kept[3][name]) for name in fixed)
    assert module.cascade.learning == 1


@pytest.mark.parametrize(("weight", "ways"), [(0.0, 1), (0.5, 2)])
def test_pairs_are_registered_both_ways_only_where_it_counts(tmp_path, weight, ways):
    cascade = build(n=1)
    module = RegistrationModule(cascade, Objective(inverse_consistency=weight, folding=1.0))
    seen = []
    cascade.register_forward_pre_hook(lambda _, images: seen.append((cascade.training, *images[:2])))
    trainer = fit(module, tmp_path, [pairs()], max_steps=1)
    steps = [images for training, *images in seen if training]
    assert len(steps) == ways and len(seen) - ways == 2  # validation, once before and once after
    if ways == 2:
        assert steps[0][0].equal(steps[1][1]) and steps[0][1].equal(steps[1][0])
    assert ("train/inverse_consistency" in trainer.callback_metrics) == (ways == 2)
    assert "train/folding" in trainer.callback_metrics and "val/folding" in trainer.callback_metrics
    assert "val/inverse_consistency" not in trainer.callback_metrics


@pytest.mark.parametrize("mixed", [True, False])
def test_statistics_stay_float32_under_mixed_precision(mixed):
    module = RegistrationModule(build(cascade="mcr", n=1, affine="learned", size=(16, 18, 17)), Objective(alpha=0.5))
    batch = pairs()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):  # types only: some CPUs' bf16 has no right values
        registration = module.cascade.register(batch)
        terms = module.objective(registration, batch["fixed"])
    kept = {"flow": registration.flow, "moved": registration.moved} | terms
    assert {name: value.dtype for name, value in kept.items()} == dict.fromkeys(kept, torch.float32)


def test_mixed_precision_trains_with_clipped_gradients(tmp_path):
    class Plain(RegistrationModule):
        """A training step without a convolution, whose bf16 kernels some CPUs lack."""

        def training_step(self, batch, batch_idx):
            return sum(weight.square().sum() for weight in self.parameters())

    module = Plain(build("pyramid"), Objective())
    before = module.cascade.nets[0].heads["1"].weight.detach().clone()
    fit(module, tmp_path, [pairs()], max_steps=1, precision="bf16-mixed", gradient_clip_val=1.0, limit_val_batches=0)
    assert not torch.equal(module.cascade.nets[0].heads["1"].weight, before)

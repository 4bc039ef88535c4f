"""Soft Dice and landmark distance against loops in NumPy; what an objective with their weights asks of the data."""

import itertools

import lightning as L
import numpy as np
import pytest
import torch

from regcascade import build
from regcascade.data import RegistrationData, Split, build_data
from regcascade.data.case import Case, CaseSet
from regcascade.geometry.warp import warp
from regcascade.losses import Objective, landmark_loss, soft_dice_loss, supervision
from regcascade.registration import Registration, Stage
from regcascade.training.module import RegistrationModule
from regcascade.training.optimizer import Optimization

SIZE = (5, 7, 6)


def interpolated(volume: np.ndarray, place: np.ndarray) -> float:
    """Trilinear, the place clamped to the volume."""
    place = np.clip(place, 0, np.array(volume.shape) - 1)
    low = np.floor(place).astype(int)
    value = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.prod([f if c else 1 - f for f, c in zip(place - low, corner, strict=True)])
        at = np.minimum(low + corner, np.array(volume.shape) - 1)
        value += weight * volume[tuple(at)]
    return value


def dice_by_loops(moving: np.ndarray, fixed: np.ndarray, flow: np.ndarray) -> float:
    """Of one pair: the mean over the labels in either scan."""
    scores = []
    for label in sorted({*moving.flatten(), *fixed.flatten()} - {0}):
        shared = total = 0.0
        for place in np.ndindex(fixed.shape):
            moved = interpolated((moving == label).astype(float), np.array(place) + flow[(slice(None), *place)])
            target = float(fixed[place] == label)
            shared += moved * target
            total += moved + target
        scores.append(2 * shared / total)
    return float(np.mean(scores))


@pytest.fixture
def labels():
    """Moving and fixed labels 0, 2, 3, 7; the second pair has no 3."""
    generator = torch.Generator().manual_seed(0)
    moving, fixed = torch.tensor([0, 0, 2, 3, 7])[torch.randint(5, (2, 2, 1, *SIZE), generator=generator)]
    for volume in (moving, fixed):
        volume[1][volume[1] == 3] = 0
    return moving, fixed


@pytest.fixture
def flow():
    return 3 * torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1.5


@pytest.fixture
def points():
    """Fixed and moving landmarks: pair 0 has three of four, pair 1 one."""
    generator = torch.Generator().manual_seed(2)
    fixed, moving = torch.rand(2, 2, 4, 3, generator=generator, dtype=torch.float64) * 4.5
    fixed[0, 1], moving[1, 0, 2], fixed[1, 2], moving[1, 3] = (float("nan"),) * 4
    return fixed, moving


def test_dice_equals_loops(labels, flow):
    moving, fixed = labels
    pairs = zip(moving[:, 0].numpy(), fixed[:, 0].numpy(), flow.numpy(), strict=True)
    expected = 1 - np.mean([dice_by_loops(*pair) for pair in pairs])
    assert soft_dice_loss(moving, fixed, flow).item() == pytest.approx(expected, abs=1e-12)
    assert soft_dice_loss(moving.short(), fixed.short(), flow.float()).item() == pytest.approx(expected, abs=1e-5)


def test_dice_of_labels_in_groups_is_that_of_all_at_once(labels, flow, monkeypatch):
    values, gradients = [], []
    for at_once in (8, 2, 1):
        monkeypatch.setattr(supervision, "LABELS_AT_ONCE", at_once)
        leaf = flow.clone().requires_grad_()
        loss = soft_dice_loss(*labels, leaf)
        loss.backward()
        values.append(loss.detach())
        gradients.append(leaf.grad)
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0])
        torch.testing.assert_close(gradient, gradients[0])


def test_gradients_are_those_of_finite_differences(labels, flow, points, monkeypatch):
    monkeypatch.setattr(supervision, "LABELS_AT_ONCE", 2)
    leaf = flow[..., :3, :4, :3].clone().requires_grad_()
    moving, fixed = (volume[..., :3, :4, :3] for volume in labels)
    assert torch.autograd.gradcheck(lambda f: soft_dice_loss(moving, fixed, f), leaf, nondet_tol=1e-12)
    assert torch.autograd.gradcheck(lambda f: landmark_loss(*points, f), leaf, nondet_tol=1e-12)


def test_a_batch_without_labels_costs_nothing(labels, flow):
    nothing = torch.zeros_like(labels[0])
    assert soft_dice_loss(nothing, nothing, flow) == 0


def test_a_label_of_one_scan_only_counts_as_no_overlap():
    fixed = torch.zeros(1, 1, *SIZE, dtype=torch.long)
    fixed[..., 1:3, :] = 1
    moving = fixed.clone()
    moving[..., 4:, :] = 2
    flow = torch.zeros(1, 3, *SIZE, requires_grad=True)
    loss = soft_dice_loss(moving, fixed, flow)
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    assert flow.grad.isfinite().all()
    # Moved out of sight, the second label leaves 0 / 0.
    out = torch.zeros(1, 3, *SIZE)
    out[:, 1] = -9
    out.requires_grad_()
    soft_dice_loss(moving, fixed, out).backward()
    assert out.grad.isfinite().all()


def test_a_pair_without_labels_or_landmarks_is_left_out(labels, flow, points):
    moving, fixed = (volume.clone() for volume in labels)
    moving[1] = fixed[1] = 0
    expected = soft_dice_loss(moving[:1], fixed[:1], flow[:1])
    torch.testing.assert_close(soft_dice_loss(moving, fixed, flow), expected)
    fixed_points, moving_points = (cloud.clone() for cloud in points)
    fixed_points[1] = float("nan")
    expected = landmark_loss(fixed_points[:1], moving_points[:1], flow[:1])
    torch.testing.assert_close(landmark_loss(fixed_points, moving_points, flow), expected)


def test_landmark_distance_equals_loops(points, flow):
    fixed, moving = (cloud.numpy() for cloud in points)
    means = []
    for item in range(2):
        distances = []
        for p, q in zip(fixed[item], moving[item], strict=True):
            if not np.isnan([p, q]).any():
                step = [interpolated(component, p) for component in flow[item].numpy()]
                distances.append(np.linalg.norm(p + step - q))
        means.append(np.mean(distances))
    assert landmark_loss(*points, flow).item() == pytest.approx(np.mean(means), abs=1e-12)


def test_missing_landmarks_and_ones_that_have_arrived_leave_finite_gradients(points, flow):
    nowhere = torch.full_like(points[0], float("nan"))
    for fixed, moving in (points, (points[0], points[0]), (nowhere, points[1]), (nowhere, nowhere)):
        leaf = torch.zeros_like(flow).requires_grad_()
        loss = landmark_loss(fixed, moving, leaf)
        loss.backward()
        assert loss.isfinite() and leaf.grad.isfinite().all()
    assert landmark_loss(nowhere, nowhere, flow) == 0


def shift(amounts: tuple[int, int, int]) -> tuple[dict, torch.Tensor]:
    """A batch whose moving scan is the fixed one shifted by whole voxels, and the flow that undoes it."""
    generator = torch.Generator().manual_seed(3)
    size = (14, 12, 13)
    fixed = torch.zeros(1, 1, *size, dtype=torch.long)
    fixed[..., 4:8, 4:7, 4:8], fixed[..., 8:10, 5:8, 5:9] = 1, 2
    image = (fixed > 0) * 0.5 + 0.5 * torch.rand(fixed.shape, generator=generator)
    points = torch.tensor([[[5.0, 5.5, 6.25], [8.0, 6.0, 7.0]]])
    batch = {
        "fixed": image, "moving": image.roll(amounts, (2, 3, 4)),
        "fixed_labels": fixed, "moving_labels": fixed.roll(amounts, (2, 3, 4)),
        "fixed_points": points, "moving_points": points + torch.tensor(amounts),
        "fixed_spacing": torch.ones(1, 3), "moving_spacing": torch.ones(1, 3),
        "fixed_name": ["a"], "moving_name": ["b"],
    }  # fmt: skip
    return batch, torch.tensor(amounts).float().view(1, 3, 1, 1, 1).expand(1, 3, *size).contiguous()


def registered(batch: dict, flow: torch.Tensor) -> Registration:
    stage = Stage(flow, {0: flow}, warp(batch["moving"], flow))
    return Registration(batch["moving"], (stage,), (stage,))


def test_convention_the_true_flow_of_a_shift_costs_nothing_and_its_negative_much():
    batch, true = shift((2, -1, 1))
    objective = Objective(labels=1.0, landmarks=1.0)
    values = [objective(registered(batch, factor * true), batch["fixed"], batch) for factor in (1, 0, -1)]
    for term in ("labels", "landmarks"):
        at_truth, at_nothing, opposite = (value[term].item() for value in values)
        assert at_truth == pytest.approx(0, abs=1e-5)
        assert 0.1 < at_nothing < opposite


def test_the_terms_enter_the_sum_by_their_weights_and_only_with_a_batch():
    batch, true = shift((2, -1, 1))
    registration = registered(batch, true / 3)
    plain = Objective()(registration, batch["fixed"], batch)
    assert not {"labels", "landmarks"} & set(plain)
    objective = Objective(labels=2.0, landmarks=0.25)
    terms = objective(registration, batch["fixed"], batch)
    expected = plain["loss"] + 2 * terms["labels"] + 0.25 * terms["landmarks"]
    torch.testing.assert_close(terms["loss"], expected)
    without = objective(registration, batch["fixed"])
    assert set(without) == set(plain)
    torch.testing.assert_close(without["loss"], plain["loss"])


def test_both_are_float32_under_autocast():
    batch, true = shift((2, -1, 1))
    registration = registered(batch, 0.3 * true)
    objective = Objective(labels=1.0, landmarks=1.0)
    expected = objective(registration, batch["fixed"], batch)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(registration, batch["fixed"], batch)
    for name in ("labels", "landmarks"):
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], expected[name])


def test_a_batch_without_what_is_weighed_is_refused():
    batch, true = shift((1, 0, 0))
    registration = registered(batch, true)
    for term, part in {"labels": "labels", "landmarks": "points"}.items():
        lacking = {key: value for key, value in batch.items() if not key.endswith(part)}
        with pytest.raises(ValueError, match=rf"^loss\.{term}=0\.5 needs {part}.*a among them.*loss\.{term}=0"):
            Objective(**{term: 0.5})(registration, batch["fixed"], lacking)


@pytest.mark.parametrize("option", ["labels", "landmarks"])
def test_negative_weights_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} is -1.0: weights are 0 or more"):
        Objective(**{option: -1.0})


class Partly(CaseSet):
    """Noise of which scan 1 has neither labels nor points; it counts how often it is read."""

    def __init__(self) -> None:
        self.names = [f"scan_{index}" for index in range(5)]
        self.label_names = {1: "one"}
        self.reads = 0

    def __getitem__(self, index: int) -> Case:
        self.reads += 1
        image = torch.rand(1, 16, 16, 16, generator=torch.Generator().manual_seed(index))
        whole = self.labelled(index)
        points = torch.full((2, 3), 7.0) if whole else None
        return Case(self.names[index], image, (1.0, 1.0, 1.0), (image > 0.5).int() if whole else None, points)

    def labelled(self, index: int) -> bool:
        return index != 1


def quiet_trainer(tmp_path, **options) -> L.Trainer:
    return L.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", default_root_dir=tmp_path, **options,
    )  # fmt: skip


@pytest.mark.parametrize(("term", "part"), [("labels", "labels"), ("landmarks", "points")])
def test_scans_that_lack_what_is_weighed_stop_a_run_before_it_trains(tmp_path, term, part):
    cases = Partly()
    data = RegistrationData(cases, Split(cases.names[:3], cases.names[3:]), validate=False)
    assert data.scans_without(part) == ["scan_1"]
    module = RegistrationModule(build(n=1), Objective(**{term: 1.0}))
    module.training_step = module.validation_step = lambda *_: pytest.fail("it began")
    with pytest.raises(ValueError, match=rf"loss\.{term}=1\.0 needs {part} .* 1 have none \(scan_1 among them\)"):
        quiet_trainer(tmp_path, max_steps=1).fit(module, data)
    whole = RegistrationData(cases, Split([cases.names[0], cases.names[2]], cases.names[3:]))
    assert whole.scans_without(part) == []


@pytest.mark.parametrize("term", ["labels", "landmarks"])
def test_a_few_steps_lower_the_term_and_validation_leaves_it_out(tmp_path, term):
    torch.manual_seed(0)
    data = build_data({"name": "phantom", "size": [16, 17, 16], "train": 2, "validation": 2})
    objective = Objective(lambda1=0.0, smoothness=0.0, **{term: 1.0})
    module = RegistrationModule(build(n=1), objective, Optimization(lr=1e-3, schedule="constant", warmup_steps=0))
    module.labels = tuple(data.label_names)
    trainer = quiet_trainer(tmp_path, max_steps=4, max_epochs=-1)
    loader = torch.utils.data.DataLoader([next(iter(data.train_dataloader()))], batch_size=None)
    seen = []
    module.on_train_batch_end = lambda *_: seen.append(trainer.callback_metrics[f"train/{term}"].item())
    trainer.fit(module, loader, loader)
    assert len(seen) == 4
    assert seen[-1] < seen[1] < seen[0]
    assert f"val/{term}" not in trainer.callback_metrics
    assert {"val/dice", "val/landmark_distance_voxels"} <= set(trainer.callback_metrics)

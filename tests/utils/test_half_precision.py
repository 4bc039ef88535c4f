"""Half-precision convolutions that cannot be trusted are found, on any machine."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regcascade import build
from regcascade.training.execution import check_half_precision, evaluated
from regcascade.utils import half_precision
from regcascade.utils.half_precision import unsound_convolution

BF16, CPU = torch.bfloat16, torch.device("cpu")


def convolving(net: nn.Module, *shape: int) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.autocast("cpu", dtype=BF16):
            return net(torch.rand(shape))

    return run


def broken(monkeypatch, spoil: Callable[[Tensor, Tensor | None], Tensor]) -> None:
    """Lets every convolution in half precision, and only there, give what `spoil` makes of the output and the bias."""
    sound = torch.convolution

    def convolution(volume: Tensor, weight: Tensor, bias: Tensor | None, *settings) -> Tensor:
        output = sound(volume.float(), weight.float(), None if bias is None else bias.float(), *settings)
        return spoil(output, weight).to(volume.dtype) if volume.dtype == BF16 else output

    monkeypatch.setattr(half_precision.torch, "convolution", convolution)


class WrongGradient(torch.autograd.Function):
    """The identity, with a backward pass that is a tenth too large every second time."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        WrongGradient.calls += 1
        return gradient * (1.1 if WrongGradient.calls % 2 == 0 else 1.0)


def test_sound_convolutions_pass(monkeypatch):
    broken(monkeypatch, lambda output, _: output)
    net = nn.Sequential(nn.Conv3d(3, 4, 3, 2, 1), nn.Conv3d(4, 4, 3, padding=1), nn.ConvTranspose3d(4, 2, 4, 2, 1))
    assert unsound_convolution(convolving(net, 1, 3, 4, 6, 8), BF16, CPU) is None


def test_a_wrong_output_is_told_with_its_layer_and_map(monkeypatch):
    broken(monkeypatch, lambda output, weight: output * (1.1 if weight.shape[0] == 5 else 1.0))
    net = nn.Sequential(nn.Conv3d(3, 4, 3, 2, 1), nn.Conv3d(4, 5, 1))
    fault = unsound_convolution(convolving(net, 1, 3, 4, 6, 8), BF16, CPU)
    assert fault is not None
    assert fault.startswith("a 1x1x1 convolution of 4 feature maps of 2x3x4 voxels gives a wrong output in bfloat16")


def test_a_gradient_that_is_wrong_now_and_then_is_found_where_it_is_taken(monkeypatch):
    broken(monkeypatch, lambda output, _: WrongGradient.apply(output))
    net = nn.Sequential(nn.Conv3d(2, 3, 1), nn.Conv3d(3, 2, 3, padding=1))
    run = convolving(net, 1, 2, 3, 4, 5)
    assert "wrong gradient of its" in str(unsound_convolution(run, BF16, CPU))
    net.requires_grad_(False)
    assert unsound_convolution(run, BF16, CPU) is None
    net[0].requires_grad_(True)
    assert "gradient of its" in str(unsound_convolution(run, BF16, CPU))
    with torch.no_grad():
        assert unsound_convolution(run, BF16, CPU) is None


def test_one_number_that_differs_from_call_to_call_is_found(monkeypatch):
    calls = []

    def one_off(output: Tensor, _) -> Tensor:
        calls.append(1)
        spoiled = output.clone()
        spoiled.view(-1)[5] += 0.02 * output.detach().abs().max() * (len(calls) % 2)
        return spoiled

    broken(monkeypatch, one_off)
    fault = unsound_convolution(convolving(nn.Conv3d(4, 8, 3, padding=1), 1, 4, 6, 6, 6), BF16, CPU)
    assert fault is not None and "another output in bfloat16 at each call" in fault


def test_a_cascade_keeps_its_modes_and_its_statistics():
    class Counting(nn.Module):
        needs_alignment = False

        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2)
            self.norm.eval()

        def register_images(self, moving: Tensor, fixed: Tensor) -> Tensor:
            pair = torch.cat([moving, fixed], 1)
            assert not self.training
            return self.norm(self.convolution(pair)) if pair.max().item() > 0 else pair  # wants data

    model = Counting()
    with evaluated(model):
        model.register_images(torch.rand(1, 1, 2, 2, 2), torch.rand(1, 1, 2, 2, 2))
    assert model.training and model.convolution.training and not model.norm.training
    assert model.norm.num_batches_tracked == 0


def test_nan_is_wrong(monkeypatch):
    broken(monkeypatch, lambda output, _: output + float("nan"))
    assert "error nan" in str(unsound_convolution(convolving(nn.Conv3d(1, 1, 3), 1, 1, 3, 3, 3), BF16, CPU))


def test_layers_in_float32_are_none_of_its_business(monkeypatch):
    broken(monkeypatch, lambda output, _: output * 2)
    net = nn.Conv3d(1, 1, 3)
    assert unsound_convolution(lambda: net(torch.rand(1, 1, 4, 4, 4)), BF16, CPU) is None


def test_the_maps_of_a_cascade_are_those_it_has_and_random_numbers_are_left_alone(monkeypatch):
    seen = []
    monkeypatch.setattr(half_precision, "_fault", lambda convolution, *_: seen.append(convolution))
    cascade = build("voxelmorph", "mcr", 2)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_half_precision(cascade, (32, 48, 20), 2, "bf16-mixed", CPU)
    assert torch.equal(torch.rand(3), expected)
    sides = {convolution.shapes[0][2:] for convolution in seen}
    assert (2, 3, 2) in sides and all(len(convolution.shapes[0]) == 5 for convolution in seen)
    assert max(max(side) for side in sides) <= half_precision.LARGEST_SIDE
    assert {convolution.shapes[0][0] for convolution in seen} == {2}
    assert len(seen) < 20  # both stages, and both halves of a ladder, have the same ones


def test_a_network_that_needs_data_is_run_with_data(monkeypatch):
    seen = []
    monkeypatch.setattr(half_precision, "_fault", lambda convolution, *_: seen.append(convolution))

    class Asking(nn.Conv3d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.max().item() > 0 else x

    unsound_convolution(convolving(Asking(1, 1, 3), 1, 1, 4, 4, 4), BF16, CPU)
    assert [convolution.shapes[0] for convolution in seen] == [(1, 1, 4, 4, 4)]


@pytest.mark.parametrize(("precision", "device"), [("32-true", "cpu"), (None, "cpu"), ("bf16-mixed", "cuda")])
def test_full_precision_and_gpus_are_not_checked(monkeypatch, precision, device):
    monkeypatch.setattr("regcascade.training.execution.unsound_convolution", lambda *_: pytest.fail("it ran"))
    check_half_precision(build("voxelmorph"), (32, 32, 32), 1, precision, torch.device(device))


def test_a_training_is_refused_with_the_remedy(monkeypatch):
    broken(monkeypatch, lambda output, _: output * 1.5)
    with pytest.raises(ValueError, match=r"precision=bf16-mixed: on this CPU .* Set trainer\.precision=32-true"):
        check_half_precision(build("voxelmorph"), (16, 16, 16), 1, "bf16-mixed", CPU)

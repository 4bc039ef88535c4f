import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from regcascade.losses.affine import affine_losses


def matrices(seed=0, batch=2, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(3, dtype=torch.float64) + spread * torch.randn(
        batch, 3, 3, generator=generator, dtype=torch.float64
    )


def ortho(matrix, epsilon=1e-5):
    """The sum over the eigenvalues, by a decomposition."""
    eigenvalues = np.linalg.eigvalsh(matrix.T @ matrix + epsilon * np.eye(3))
    return sum(k + (1 + epsilon) ** 2 / k - 2 * (1 + epsilon) for k in eigenvalues)


def test_terms_agree_with_numpy():
    a = matrices()
    losses = affine_losses(a)
    assert set(losses) == {"det", "ortho"}
    assert losses["det"].item() == pytest.approx(
        np.mean([0.5 * (np.linalg.det(item) - 1) ** 2 for item in a.numpy()]), rel=1e-12
    )
    assert losses["ortho"].item() == pytest.approx(np.mean([ortho(item) for item in a.numpy()]), rel=1e-10)


def test_rotations_cost_nothing():
    rotations = Rotation.from_euler("xyz", [[0, 0, 0], [10, -25, 40], [170, 3, 91]], degrees=True).as_matrix()
    for dtype in (torch.float32, torch.float64):
        losses = affine_losses(torch.as_tensor(rotations, dtype=dtype))
        assert abs(losses["det"].item()) < 1e-12
        assert abs(losses["ortho"].item()) < 1e-10


def test_known_matrices():
    scaled = affine_losses(torch.diag(torch.tensor([2.0, 1.0, 1.0])).double()[None])
    assert scaled["det"].item() == pytest.approx(0.5)
    assert scaled["ortho"].item() == pytest.approx(4 + 1 / 4 - 2, rel=1e-4)
    mirrored = affine_losses(torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[None])
    assert mirrored["det"].item() == pytest.approx(2)
    assert mirrored["ortho"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_matrices_are_finite(rank, dtype):
    diagonal = torch.tensor([1.0] * rank + [0.0] * (3 - rank), dtype=dtype)
    turn = torch.as_tensor(Rotation.from_euler("xyz", [0.3, 0.4, 0.5]).as_matrix(), dtype=dtype)
    matrix = (turn @ torch.diag(diagonal) @ turn.T)[None].requires_grad_()
    losses = affine_losses(matrix)
    (losses["det"] + losses["ortho"]).backward()
    assert losses["ortho"].item() == pytest.approx(ortho(matrix[0].detach().double().numpy()), rel=1e-3)
    assert matrix.grad.isfinite().all()


def test_gradient_vanishes_at_the_identity():
    matrix = torch.eye(3)[None].requires_grad_()
    losses = affine_losses(matrix)
    (losses["det"] + losses["ortho"]).backward()
    assert matrix.grad.abs().max() < 1e-6


@pytest.mark.parametrize("term", ["det", "ortho"])
def test_gradients_in_float64(term):
    assert torch.autograd.gradcheck(lambda a: affine_losses(a)[term], matrices().requires_grad_())


def test_terms_are_float32_under_autocast():
    a = matrices().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = affine_losses(a)
    for name, value in affine_losses(a.float()).items():
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], value, rtol=0, atol=0)

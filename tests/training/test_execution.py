"""Options of a training that change none of its results: compiled, channels last, half precision; bad values."""

import os
import shutil
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from regcascade import build, cascades
from regcascade import networks as nets
from regcascade.cascades.base import CASCADES
from regcascade.losses import Objective
from regcascade.networks import NETS, build_net
from regcascade.training.execution import Execution, check_compiles, check_precision, likely_device, split_trainer

SIZE = (16, 16, 16)
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
COMBINATIONS = [
    (net, strategy)
    for net, strategy in product(nets.names(), cascades.names())
    if set(CASCADES.get(strategy).levels) <= set(NETS.get(net).scales)
]


@pytest.fixture(autouse=True)
def small_drnet(monkeypatch):
    monkeypatch.setattr("regcascade.networks.drnet.WIDTHS", (8, 8, 16, 16, 16))


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, 1, *SIZE, generator=generator)


@pytest.mark.parametrize(
    ("net", "strategy", "dtype"),
    [*((*names, torch.bfloat16) for names in COMBINATIONS), ("voxelmorph", "mcr", torch.float16)],
)
def test_warps_and_statistics_stay_float32_in_half_precision(net, strategy, dtype, monkeypatch):
    sampled, statistics = [], []
    sampler, precise = nn.functional.grid_sample, torch.Tensor.square
    monkeypatch.setattr(
        "torch.nn.functional.grid_sample",
        lambda image, grid, **options: (sampled.extend([image.dtype, grid.dtype]), sampler(image, grid, **options))[1],
    )
    monkeypatch.setattr(torch.Tensor, "square", lambda x: (statistics.append(x.dtype), precise(x))[1])
    levels = {"alpha": 0.5, "beta": 0.25} if 2 in CASCADES.get(strategy).levels else {}
    moving, fixed = images()
    width = {"width": 2} if net == "vtn" else {}
    cascade = build({"name": net, **width}, strategy, 1)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        registration = cascade(moving, fixed)
        terms = Objective(lambda2=1.0, **levels)(registration, fixed)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    stage = registration.stages[-1]
    fields = [stage.flow, stage.moved, *stage.totals.values()]
    assert {field.dtype for field in fields} == {torch.float32}
    assert all(field.isfinite().all() for field in fields)
    assert len(sampled) >= 2 and set(sampled) == {torch.float32}
    assert statistics and set(statistics) == {torch.float32}


def test_options_of_ours_are_told_from_lightning_s():
    ours, theirs = split_trainer({"recompute": "stage", "max_steps": 3, "compile": True})
    assert ours == Execution("stage", True, False)
    assert theirs == {"max_steps": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recompute": "stages"}, r"trainer\.recompute=stages is not valid\. Known: none, stage\..*'stage'"),
        ({"recompute": None}, r"trainer\.recompute=None is not valid\. Known: none, stage\."),
        ({"compile": "yes"}, r"compile='yes' is not of the right type"),
        ({"channels_last": 1}, r"channels_last=1 is not of the right type"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        split_trainer(options)


@pytest.mark.parametrize("precision", ["16-mixed", "16", 16])
def test_a_cpu_has_no_fp16_training(precision):
    with pytest.raises(ValueError, match=rf"trainer\.precision={precision}: .*bf16-mixed"):
        check_precision(precision, CPU)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_flows_are_never_half_precision(precision):
    with pytest.raises(ValueError, match=rf"trainer\.precision={precision} .*-mixed"):
        check_precision(precision, torch.device("cuda"))


def test_a_gpu_without_bf16_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old")
    with pytest.raises(ValueError, match=r"trainer\.precision=bf16-mixed: Old has no bf16\. Set .*16-mixed"):
        check_precision("bf16-mixed", torch.device("cuda"))


@pytest.mark.parametrize("precision", ["32-true", 32, "bf16-mixed", "64-true", None])
def test_what_a_cpu_has_is_taken(precision):
    check_precision(precision, CPU)


def test_the_likely_device_needs_a_gpu_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [likely_device(name).type for name in ("auto", "gpu", "cuda", "cpu")] == ["cuda"] * 3 + ["cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert likely_device("auto") == CPU


def test_without_a_compiler_it_is_said_before_training(monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(ValueError, match=r"trainer\.compile=true: .*No working C\+\+ compiler.*trainer\.compile=false"):
        check_compiles(CPU)


COMPILED = """
from functools import partial
import torch
from regcascade import build
from regcascade.training.execution import Execution
from regcascade.losses import Objective

# Traced and differentiated as for the real compiler, but run by PyTorch's own operations.
torch.compile = partial(torch.compile, backend="aot_eager")
torch.manual_seed(0)
plain, compiled = (build({"name": "voxelmorph", "head_init": "paper"}, "cr", 1) for _ in range(2))
compiled.load_state_dict(plain.state_dict())
moving, fixed = torch.rand(2, 1, 1, 16, 16, 16)
Objective()(plain(moving, fixed), fixed)["loss"].backward()
Execution(compile=True).apply(compiled)
assert list(compiled.state_dict()) == list(plain.state_dict())
for recompute in ("none", "stage"):
    compiled.zero_grad()
    compiled.recompute = recompute
    Objective()(compiled(moving, fixed), fixed)["loss"].backward()
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
"""


def test_a_compiler_is_asked_for_in_words_that_pytorch_knows(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # which needs none
    check_compiles(CPU)


@pytest.mark.long
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_a_compiled_cascade_learns_as_the_plain_one():
    really = COMPILED.replace('torch.compile = partial(torch.compile, backend="aot_eager")', "check_compiles(CPU)")
    assert really != COMPILED
    head = "from regcascade.training.execution import check_compiles\nimport torch\nCPU = torch.device('cpu')\n"
    done = subprocess.run([sys.executable, "-c", head + really], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_compiled_cascade_gives_the_same_under_the_same_names():
    # In a process of its own, without the checks of shapes, which the compiler cannot trace.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", nets.names())
def test_channels_last_changes_the_layout_and_not_the_flow(name):
    torch.manual_seed(0)
    net = build_net(name)
    cascade = build("voxelmorph", "cr", 1)
    cascade.nets = nn.ModuleList([net])
    for head in net.heads.values():
        nn.init.normal_(head.weight, std=0.02)
    with torch.no_grad():
        plain = cascade(*images())
        names = list(cascade.state_dict())
        Execution(channels_last=True).apply(cascade)
        again = cascade(*images())
    assert list(cascade.state_dict()) == names
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv3d)]
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last_3d) for each in convolutions)
    torch.testing.assert_close(again.flow, plain.flow, rtol=1e-3, atol=1e-4)

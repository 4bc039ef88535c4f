"""The papers' rows as experiments: they compose, build, train at tiny size, and print what the papers print."""

import functools
import gc
import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra

from regcascade.cascades import CASCADES, build
from regcascade.cli import train
from regcascade.cli.run_folder import composed
from regcascade.data import build_data, options_of
from regcascade.losses import Objective
from regcascade.report.paper.experiments import CONF, COST, LABELS, TABLES, read_rows, rows_of
from regcascade.training.build import build_module
from regcascade.training.optimizer import Optimization
from regcascade.utils.registry import check_options

ROOT = Path(__file__).parents[1]
FOLDER = CONF / "experiment"
ROWS = read_rows()
EXPERIMENTS = list(dict.fromkeys(row.experiment for row in ROWS))
TRAINED = list(dict.fromkeys(row.experiment for row in ROWS if row.method is None))
BY_THEMSELVES = [name for name in TRAINED if "/brain" not in name]  # the others are these on other data
ATLASES = {"brain": "lpba/S01", "brain_2": "lpba/S02", "brain_3": "lpba/S03"}
SIZE_NOT_PRINTED = ("drnet/dr_incep", "drnet/dr_plain", "drnet/dr_l_")
COUNTS = dict(zip(TABLES, (9, 16, 17, 6, 8, 4, 4, 4, 5, 9, 4, 4), strict=True))


@functools.cache
def config(experiment: str, scale: str | None = None) -> dict:
    return composed(CONF, "train", [f"experiment={experiment}", *([f"scale={scale}"] if scale else [])])


def block(experiment: str) -> dict:
    return yaml.safe_load((FOLDER / f"{experiment}.yaml").read_text(encoding="utf-8"))


def built(options: dict, size: tuple[int, int, int]):
    affine = {key: value for key, value in options["affine"].items() if key != "checkpoint"}
    return build(options["model"], options["cascade"], options["n"], affine, size)


def settings(options: dict) -> tuple:
    """What makes an experiment a class of its own: network, cascade and loss, whatever n and the weights."""
    loss = {key: value > 0 if isinstance(value, float) else value for key, value in options["loss"].items()}
    return tuple(repr(part) for part in (options["model"], options["cascade"], loss, options["n"] == 0))


CLASSES = {settings(config(name, "small")): name for name in reversed(BY_THEMSELVES)}


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_the_papers_has_an_experiment(table):
    rows = rows_of(table, ROWS)
    assert [parts[0].row for parts in rows] == list(range(1, COUNTS[table] + 1))
    for parts in rows:
        assert len({(part.name, part.r) for part in parts}) == 1
        printed = [name for part in parts for name in part.printed]
        assert len(printed) == len(set(printed))  # no two experiments claim one number


def test_every_file_is_read_or_shared_by_others():
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")}
    assert files - set(EXPERIMENTS) == {"affine", "rcn/_base", "drnet/_base"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_file_opens_with_its_commands(name):
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = "\n".join(line for line in lines[: next(k for k, line in enumerate(lines) if not line.startswith("#"))])
    rows = [row for row in ROWS if row.experiment == name]
    repeats = sorted({row.r for row in rows})
    evaluation = f"data={rows[0].data} data.validation_pairs=null"
    evaluation += " labels=linear" if LABELS[name.split("/")[0]] == "linear" else ""
    assert comment.startswith("# @package _global_\n# ")
    if rows[0].method is None:
        assert f"#   python train.py experiment={name}" in comment
        evaluation = f"checkpoint=RUN/checkpoints/last.ckpt {evaluation}"
        evaluation += f" r=[{','.join(map(str, repeats))}]" if repeats != [1] else ""
    else:
        evaluation = f"method={rows[0].method} {evaluation}"
    assert f"#   python evaluate.py {evaluation}" in comment.splitlines()
    for row in rows:
        assert f"{row.table.split('/')[1]}" in comment.split(":")[0]  # Tables 1, 2 and 3


@pytest.mark.parametrize("name", [*BY_THEMSELVES, *(f"rcn/{brain}/vtn_n10" for brain in ATLASES)])
def test_an_experiment_composes_at_the_paper_s_settings(name):
    options = config(name)
    first = name.startswith("rcn/")
    assert options["reproduces"]["experiment"] == name
    assert options["trainer"]["max_steps"] == (100_000 if first else 30_000)
    assert (options["trainer"]["max_time"], options["trainer"]["gradient_clip_val"]) == (None, None)
    assert options["optimizer"]["halve_at"] == ([60_000, 80_000] if first else [10_000, 20_000])
    assert (options["optimizer"]["lr"], options["optimizer"]["head_lr"]) == (1e-4, 1.0)
    assert options["data"]["batch_size"] == (4 if first else 1)
    assert options["data"]["augmentation"] == ("bspline" if first else "none")
    as_their_program = first and options["model"]["name"] == "vtn"  # which draws VoxelMorph's head near zero itself
    assert options["model"]["head_init"] == ("paper" if as_their_program else "near_zero")
    if options["affine"]["name"] != "precomputed":
        assert options["affine"]["head_init"] == ("paper" if first else "near_zero")
    assert options["reproduces"]["scale"] == "paper"
    assert list(options["data"]["test"]) == (["lpba"] if "/brain" in name else ["sliver", "lits", "lspig"])
    assert options["data"]["atlas"] == ATLASES.get(options["reproduces"]["data"])
    Objective(**options["loss"]).check_levels(CASCADES.get(options["cascade"]["name"]).levels)
    Optimization(**options["optimizer"])


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in BY_THEMSELVES])
def test_the_brain_rows_are_those_of_the_liver_on_other_data(name):
    """Which is why composing one of each folder is enough."""
    parent = "/experiment/rcn/" + name.split("/")[-1]
    assert parent.removeprefix("/experiment/") in BY_THEMSELVES
    assert name.split("/")[1] == block(name)["reproduces"]["data"] in ATLASES
    assert block(name)["defaults"] == [parent, "_self_", {"override /data": block(name)["reproduces"]["data"]}]
    assert block(name).keys() == {"defaults", "reproduces"}


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_in_miniature_only_data_schedule_and_affine_stage_are_others(name):
    paper, small = config(name), config(name, "small")
    assert all(small[key] == paper[key] for key in ("model", "cascade", "n", "loss"))
    assert (small["data"]["name"], small["trainer"]["max_steps"], small["affine"]["name"]) == (
        "phantom",
        240,
        "learned",
    )
    assert small["reproduces"] == paper["reproduces"] | {"scale": "small"}
    check_options("data", {k: v for k, v in small["data"].items() if k != "name"}, options_of("phantom"))


@pytest.mark.parametrize("name", ["rcn/vtn_n10", "rcn/brain_2/vtn_n10", "drnet/dr_mcr3_l"])
def test_a_row_runs_on_the_hippocampus_too(name):
    options = composed(CONF, "train", [f"experiment={name}", "scale=hippocampus", "data.root=DIR"])
    data = options["data"]
    check_options("data", {k: v for k, v in data.items() if k != "name"}, options_of("msd"))
    assert (data["name"], data["root"], data["size"], data["batch_size"]) == ("msd", "DIR", [48, 64, 48], 1)
    assert options["reproduces"]["scale"] == "hippocampus"


@pytest.mark.parametrize(
    ("own", "row"),
    [
        (["model=drnet", "cascade=mcr", "n=3"], "drnet/dr_mcr3_l"),
        (["model=papers/vtn", "cascade=cr", "n=2"], "rcn/vtn_n2"),
        (["model=papers/vtn", "cascade=all_stages", "n=3"], "rcn/vtn_addd"),
        (["model=voxelmorph", "cascade=cr", "n=0"], "rcn/affine"),
    ],
)
def test_the_paper_s_scale_makes_a_model_of_one_s_own_the_paper_s_training(own, row):
    ours, theirs = composed(CONF, "train", [*own, "scale=paper", "data=liver"]), config(row)
    assert (ours.pop("reproduces")["scale"], theirs.pop("reproduces")["experiment"]) == ("paper", row)
    assert ours == theirs


@pytest.mark.parametrize("name", ["rcn/vm_prealigned", "drnet/vm_cr2", "drnet/affine"])
def test_an_experiment_has_the_paper_s_scale_already(name):
    assert config(name, "paper") == config(name)


def test_a_plain_training_has_no_scale_and_what_is_named_wins_over_the_paper_s():
    plain = composed(CONF, "train", [])
    assert plain["reproduces"]["scale"] is None
    assert (plain["trainer"]["max_steps"], plain["affine"]["name"], plain["data"]["batch_size"]) == (240, "none", 1)
    named = ["affine=none", "optimizer=adam", "trainer.max_steps=7", "data.batch_size=2"]
    options = composed(CONF, "train", ["cascade=cr", "scale=paper", *named])
    assert (options["affine"]["name"], options["optimizer"]["schedule"]) == ("none", "cosine")
    assert (options["trainer"]["max_steps"], options["data"]["batch_size"]) == (7, 2)
    only_affine = composed(CONF, "train", ["experiment=affine", "scale=paper"])  # the experiment has no schedule
    assert (only_affine["trainer"]["max_steps"], only_affine["affine"]["name"]) == (100_000, "learned")


def test_what_the_command_line_says_wins_over_the_scale():
    options = composed(CONF, "train", ["experiment=drnet/dr", "scale=small", "affine=frozen", "trainer.max_steps=7"])
    assert (options["affine"]["name"], options["trainer"]["max_steps"]) == ("frozen", 7)


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_an_experiment_builds_and_has_the_printed_size(name):
    with torch.device("meta"):
        cascade = built(config(name), (128, 128, 128))
    size = 12 * sum(parameter.numel() for parameter in cascade.parameters()) / 2**20
    printed = {row.printed.get(COST, {}).get("paper_size_mib") for row in ROWS if row.experiment == name} - {None}
    assert len(printed) == (name.startswith("drnet/") and not name.startswith(SIZE_NOT_PRINTED))
    for text in printed:
        assert size == pytest.approx(float(text), rel=0.01)
    assert cascade.n == config(name)["n"]


def test_the_classes_are_those_of_the_papers():
    networks = {(config(name)["model"]["name"], config(name)["cascade"]["name"]) for name in CLASSES.values()}
    assert networks == {
        ("voxelmorph", "cr"), ("voxelmorph", "mcr"), ("vtn", "cr"), ("vtn", "all_stages"), ("vtn", "mcr"),
        ("drnet", "cr"), ("drnet", "mcr"),
    }  # fmt: skip
    assert len(CLASSES) == 17


@pytest.fixture
def freed() -> Iterator[None]:
    """Free the training at once: trainer and module hold each other, a gigabyte for a large network."""
    yield
    gc.collect()


@pytest.mark.parametrize("name", CLASSES.values())
@pytest.mark.usefixtures("freed")
def test_each_class_trains_two_steps(name):
    options = config(name, "small")
    options |= {"n": min(options["n"], 2), "model": dict(options["model"])}
    if options["model"]["name"] == "vtn":
        options["model"]["width"] = 2
    phantom = {"size": [16, 16, 16], "train": 2, "validation": 2, "pairs_per_epoch": 2}
    data = build_data(options["data"] | phantom)
    torch.manual_seed(0)
    module = build_module(options, data)
    parts = [module.cascade.affine, *module.cascade.nets]
    before = [torch.cat([p.detach().flatten() for p in part.parameters()]) for part in parts]
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    assert trainer.global_step == 2
    assert math.isfinite(float(trainer.callback_metrics["train/loss"]))
    for part, start in zip(parts, before, strict=True):  # every network has learnt
        assert not torch.equal(torch.cat([p.detach().flatten() for p in part.parameters()]), start)


def test_a_row_that_trains_nothing_says_what_to_run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", "experiment=rcn/brain_2/ants_syn"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        train.main()
    assert "python evaluate.py method=ants_syn data=brain_2" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in TRAINED])
def test_a_method_without_training_evaluates(name):
    (method,) = {row.method for row in ROWS if row.experiment == name}
    data = block(name)["reproduces"]["data"]
    assert composed(CONF, "evaluate", [f"method={method}", f"data={data}"])["method"]["name"] == method


@pytest.mark.shared
@pytest.mark.parametrize(("paper", "text"), [("rcn", "rcn_2019.txt"), ("drnet", "drnet_mcr_2023.txt")])
def test_the_printed_numbers_are_those_of_the_papers_row_by_row(shared, paper, text):
    content = (shared / "papers" / text).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    place = content.index({"rcn": "Method SLIVER LiTS", "drnet": "Table 1Performance"}[paper])
    for table in (table for table in TABLES if table.startswith(paper)):
        for parts in rows_of(table, ROWS):
            of_all = {name: measures for part in parts for name, measures in part.printed.items()}
            ordered = sorted(
                of_all, key=["sliver", "lits", "lspig", "lpba", "atlas 1", "atlas 2", "atlas 3", COST].index
            )
            cells = [cell for name in ordered for cell in of_all[name].values()]
            if paper == "drnet":
                cells = [cell.replace(" (", " ± ").removesuffix(")") for cell in cells]
            elif set(of_all.get(COST, ())) == {"seconds_cpu"}:  # ANTs and Elastix run on the CPU only
                cells.insert(-1, "-")
            place = content.find(("\t" if paper == "drnet" else " ").join(cells), place) + 1
            assert place > 0, (table, parts[0].name, cells)

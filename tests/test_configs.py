"""Every config composes, and lists the keys and defaults of the signature it configures."""

import inspect
from collections.abc import Callable, Collection
from pathlib import Path

import lightning as L
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from regcascade.cascades import CASCADES, build
from regcascade.cli.run_folder import register_resolvers
from regcascade.data import build_data, names, options_of
from regcascade.data.augmentation import AUGMENTATIONS
from regcascade.losses import Objective
from regcascade.networks import NETS
from regcascade.networks.affine import AffineNetwork
from regcascade.training.build import place_trainer
from regcascade.training.execution import Execution, split_trainer
from regcascade.training.optimizer import Optimization

CONF = Path(__file__).parents[1] / "conf"
SET_BY_THE_PROGRAM = {"levels", "flow_multiplier", "model", "n", "affine", "size"}
CHOICES = [
    f"{group.name}={path.stem}"
    for group in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "method")
    for path in sorted(group.glob("*.yaml"))  # the papers' experiments lie in folders: test_experiments.py
    if path.stem != "trained"
]
register_resolvers()


def composed(*overrides: str, name: str = "train") -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, list(overrides), return_hydra_config=False)
    config.paths.run = "run"  # otherwise Hydra's own folder, which only a job has
    return OmegaConf.to_container(config, resolve=True)


def defaults(cls: Callable, leave_out: Collection[str] = SET_BY_THE_PROGRAM) -> dict:
    parameters = inspect.signature(cls).parameters
    return {key: value.default for key, value in parameters.items() if key not in leave_out}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_its_model_builds(choice):
    if choice == "sweep=optuna":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra sweep")
    config = composed(choice, "data=phantom") if not choice.startswith("data=") else composed(choice)
    affine = {key: value for key, value in config["affine"].items() if key != "checkpoint"}
    if config["model"]["name"] == "voxelmorph":  # the others are built in tests/networks
        build(config["model"], config["cascade"], config["n"], affine, (16, 16, 16))
    Objective(**config["loss"]).check_levels(CASCADES.get(config["cascade"]["name"]).levels)
    Optimization(**config["optimizer"])
    assert set(split_trainer(config["trainer"])[1]) <= set(inspect.signature(L.Trainer).parameters)
    for made in [*config["logger"].values(), *config["callbacks"].values()]:
        options = {key for key in made if not key.startswith("_")}
        assert options <= set(inspect.signature(get_object(made["_target_"])).parameters)


@pytest.mark.parametrize("name", ["voxelmorph", "vtn", "drnet", "monai_voxelmorph", "monai_localnet"])
def test_model_configs_list_the_defaults_of_their_signatures(name):
    assert composed(f"model={name}")["model"] == {"name": name, **defaults(NETS.get(name))}


@pytest.mark.parametrize("name", ["cr", "mcr", "all_stages", "one_by_one"])
def test_cascade_configs_list_the_defaults_of_their_signatures(name):
    assert composed(f"cascade={name}")["cascade"] == {"name": name, **defaults(CASCADES.get(name))}


def test_every_network_and_cascade_has_a_config():
    built_in = {
        kind: {name for name in registry.names() if registry.get(name).__module__.startswith("regcascade.")}
        for kind, registry in {"model": NETS, "cascade": CASCADES}.items()
    }
    for kind, listed in built_in.items():
        assert listed == {path.stem for path in (CONF / kind).glob("*.yaml")}
        table = (CONF.parent / "docs" / "commands.md").read_text()
        assert all(f"`{name}`" in table for name in listed)


def test_loss_configs_list_the_keys_of_the_objective_and_rcn_its_defaults():
    assert composed("loss=rcn")["loss"] == defaults(Objective)
    assert composed("loss=mil")["loss"].keys() == defaults(Objective).keys()


@pytest.mark.parametrize("name", ["adam", "deep", "rcn", "mil"])
def test_optimizer_configs_list_the_keys_of_the_signature(name):
    assert composed(f"optimizer={name}")["optimizer"].keys() == defaults(Optimization).keys()


def test_the_trainer_config_lists_the_defaults_of_our_own_options():
    assert split_trainer(composed()["trainer"])[0] == Execution()
    assert defaults(Execution).items() <= composed()["trainer"].items()


def test_affine_configs_list_the_options_of_the_network():
    assert composed("affine=learned")["affine"] == {"name": "learned", "checkpoint": None, **defaults(AffineNetwork)}


@pytest.mark.parametrize(
    ("overrides", "loss"),
    [
        ([], "mil"),
        (["cascade=mcr"], "mil"),
        (["cascade=cr"], "rcn"),
        (["cascade=one_by_one"], "rcn"),
        (["cascade=mcr", "loss=rcn"], "rcn"),
        (["cascade=cr", "loss=mil"], "mil"),
        (["experiment=affine"], "rcn"),
    ],
)
def test_a_cascade_brings_its_loss_unless_another_is_named(overrides, loss):
    assert composed(*overrides)["loss"] == composed(f"loss={loss}")["loss"]


def test_dr_net_brings_its_optimizer_unless_another_is_named():
    assert composed("model=drnet")["optimizer"] == composed("optimizer=deep")["optimizer"]
    assert composed("model=drnet", "optimizer=rcn")["optimizer"] == composed("optimizer=rcn")["optimizer"]


@pytest.mark.parametrize(
    ("overrides", "steps", "limited"),
    [
        ([], 240, True),
        (["optimizer=rcn"], 100000, False),
        (["data=msd", "optimizer=rcn"], 100000, False),
        (["data=msd", "trainer=full"], 30000, False),
        (["model=drnet", "optimizer=mil"], 30000, False),
    ],
)
def test_the_papers_schedules_bring_a_full_training(overrides, steps, limited):
    trainer = composed(*overrides)["trainer"]
    assert trainer["max_steps"] == steps
    assert (trainer["max_time"] is not None) == limited


def test_evaluation_composes():
    assert composed("checkpoint=x.ckpt", name="evaluate")["data"]["name"] == "trained"
    for path in (CONF / "method").glob("*.yaml"):
        assert composed(f"method={path.stem}", name="evaluate")["method"]["name"] == path.stem


@pytest.mark.parametrize("name", names())
def test_data_configs_list_the_defaults_of_their_signatures(name):
    listed = composed(f"data={name}")["data"]
    signature = defaults(options_of(name), leave_out=())
    as_in_yaml = {key: list(value) if isinstance(value, tuple) else value for key, value in signature.items()}
    assert listed == {"name": name, **as_in_yaml}
    assert composed("checkpoint=x.ckpt", f"data={name}", name="evaluate")["data"] == listed


def test_augmentations_can_be_listed_on_the_command_line(unchecked):
    listed = composed("data=phantom", "data.augmentation=[flip,{name:affine,rotation:20}]")["data"]
    flip, affine = build_data(listed).augmentation.parts
    assert (type(flip), affine.rotation) == (AUGMENTATIONS.get("flip"), 20.0)


def test_the_trained_data_set_replaces_nothing_unless_told_to():
    listed = composed("checkpoint=x.ckpt", name="evaluate")["data"]
    known = {key for name in names() for key in defaults(options_of(name))}
    assert listed.pop("name") == "trained"
    assert listed.keys() <= known
    assert set(listed.values()) == {"as_trained"}


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONF / "trainer").glob("*.yaml"))])
def test_every_trainer_can_be_made_on_one_device(name):
    given = composed(f"trainer={name}", "trainer.accelerator=cpu")["trainer"]
    options = split_trainer(place_trainer(given))[1]
    assert L.Trainer(**options, logger=False).num_devices == 1

"""Every config composes, and lists the keys and defaults of the signature it configures."""

import inspect
from pathlib import Path

import lightning as L
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from regcascade.cascades import CASCADES, build
from regcascade.entry import register_resolvers
from regcascade.losses import Objective
from regcascade.nets import NETS
from regcascade.nets.affine import AffineNetwork
from regcascade.optimization import Optimization

CONF = Path(__file__).parents[1] / "conf"
SET_BY_THE_PROGRAM = {"levels", "flow_multiplier", "model", "n", "affine", "size"}
CHOICES = [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml")) if path.stem != "trained"]
register_resolvers()


def composed(*overrides: str, name: str = "train") -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, list(overrides), return_hydra_config=False)
    config.paths.run = "run"  # otherwise Hydra's own folder, which only a job has
    return OmegaConf.to_container(config, resolve=True)


def defaults(cls: type) -> dict:
    parameters = inspect.signature(cls).parameters
    return {key: value.default for key, value in parameters.items() if key not in SET_BY_THE_PROGRAM}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_its_model_builds(choice):
    config = composed(choice, "data=phantom") if not choice.startswith("data=") else composed(choice)
    affine = {key: value for key, value in config["affine"].items() if key != "checkpoint"}
    if config["model"]["name"] == "voxelmorph":  # the others are built in tests/nets
        build(config["model"], config["cascade"], config["n"], affine, (16, 16, 16))
    Objective(**config["loss"]).check_levels(CASCADES.get(config["cascade"]["name"]).levels)
    Optimization(**config["optimizer"])
    assert set(config["trainer"]) <= set(inspect.signature(L.Trainer).parameters)


@pytest.mark.parametrize("name", ["voxelmorph", "vtn", "drnet"])
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
    for kind, names in built_in.items():
        assert names == {path.stem for path in (CONF / kind).glob("*.yaml")}
        table = (CONF.parent / "README.md").read_text()
        assert all(f"`{name}`" in table for name in names)


def test_loss_configs_list_the_keys_of_the_objective_and_rcn_its_defaults():
    assert composed("loss=rcn")["loss"] == defaults(Objective)
    assert composed("loss=mil")["loss"].keys() == defaults(Objective).keys()


@pytest.mark.parametrize("name", ["adam", "deep", "rcn", "mil"])
def test_optimizer_configs_list_the_keys_of_the_signature(name):
    assert composed(f"optimizer={name}")["optimizer"].keys() == defaults(Optimization).keys()


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


def test_evaluation_composes():
    assert composed("checkpoint=x.ckpt", name="evaluate")["data"]["name"] == "trained"

"""Names, options and a user's own modules."""

import sys
import types
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import pytest

from regcascade.utils.registry import (
    Registry,
    check_choice,
    check_choices,
    check_options,
    did_you_mean,
    import_package,
    import_user_modules,
)


class Thing:
    def __init__(self, *, size: int = 1, colour: str = "red") -> None:
        self.size, self.colour = size, colour


class Other(Thing):
    pass


@pytest.fixture
def things():
    registry: Registry[Thing] = Registry("thing")
    registry.register("plain")(Thing)
    registry.register("another")(Other)
    return registry


@pytest.fixture
def modules():
    """Forgets what a test imports."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_name_gives_its_class(things):
    assert things.names() == ["another", "plain"]
    assert things.get("plain") is Thing


def test_an_unknown_name_is_answered_with_the_known_ones(things):
    with pytest.raises(ValueError, match=r"Unknown thing 'plane'. Known: another, plain.* 'plain'\?.*imports="):
        things.get("plane")


def test_a_name_means_one_class(things):
    with pytest.raises(ValueError, match=r"thing 'plain' is already .*Thing"):
        things.register("plain")(Other)
    assert things.get("plain") is Thing


def test_importing_a_file_again_is_fine(things):
    copy = types.new_class("Thing", (), {}, lambda body: body.update(__module__=Thing.__module__))
    things.register("plain")(copy)
    assert things.get("plain") is copy


def test_a_spec_is_a_name_or_a_mapping(things):
    assert things.options("plain") == ("plain", {})
    spec = OrderedDict(name="another", size=3)
    assert things.options(spec) == ("another", {"size": 3})
    assert spec == {"name": "another", "size": 3}


def test_bad_specs_are_refused(things):
    with pytest.raises(ValueError, match=r"mapping with a 'name'"):
        things.options({"size": 3})
    with pytest.raises(ValueError, match=r"thing 'plain' has no option 'sise'. Known: colour, size.* 'size'\?"):
        things.options({"name": "plain", "sise": 3})
    with pytest.raises(ValueError, match=r"Unknown thing 'nothing'"):
        things.options({"name": "nothing"})


def test_choices_are_named():
    check_choice("mode", "a", ["a", "b"])
    check_choice("level", None, [None, 2])
    with pytest.raises(ValueError, match=r"mode=bilinaer is not valid. Known: bilinear, nearest.* 'bilinear'\?"):
        check_choice("mode", "bilinaer", ["bilinear", "nearest"])
    with pytest.raises(ValueError, match=r"level=7 is not valid. Known: 1, 2\.$"):
        check_choice("level", 7, [1, 2])


def test_options_follow_a_signature():
    def function(*, alpha: float = 1.0, beta: int | None = None, flag: bool = False, any_of: list[int] | str = "x"):
        """Takes options."""

    check_options("x", {"alpha": 1, "beta": None, "flag": True, "any_of": 3.5}, function)
    with pytest.raises(ValueError, match=r"x has no option 'zzz'. Known: alpha, any_of, beta, flag\.$"):
        check_options("x", {"zzz": 1}, function)
    for key, value, wanted in [
        ("alpha", "1", "float"), ("alpha", True, "float"), ("alpha", None, "float"),
        ("beta", 1.5, "int or null"), ("beta", False, "int or null"), ("flag", 1, "bool"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=rf"x: {key}={value!r} is not of the right type; it wants {wanted}"):
            check_options("x", {key: value}, function)


def test_a_literal_lists_its_values_in_a_config_and_in_python():
    @dataclass(frozen=True)
    class Options:
        mode: Literal["linear", "nearest"] = "linear"
        side: int = 3

        def __post_init__(self) -> None:
            check_choices("x", self)

    check_options("x", {"mode": "nearest", "side": 4}, Options)
    message = r"x\.mode=nearst is not valid\. Known: linear, nearest\. Did you mean 'nearest'\?"
    for refuse in (lambda: check_options("x", {"mode": "nearst"}, Options), lambda: Options("nearst")):
        with pytest.raises(ValueError, match=message):
            refuse()


def test_what_a_constructor_takes_besides_its_parameters_is_no_option(things):
    def function(size: int = 1, *args: int, **others: int) -> None:
        """Takes anything."""

    for name in ("args", "others", "more"):
        with pytest.raises(ValueError, match=rf"x has no option '{name}'\. Known: size\.$"):
            check_options("x", {name: 1}, function)


def test_a_spec_is_built_with_its_options_and_what_is_reserved():
    registry: Registry[Thing] = Registry("thing", reserved=("size",))
    registry.register("plain")(Thing)
    thing = registry.build({"name": "plain", "colour": "blue"}, size=5)
    assert (thing.size, thing.colour) == (5, "blue")
    with pytest.raises(ValueError, match="no option 'size'"):
        registry.build({"name": "plain", "size": 5})


def test_a_word_like_no_other_gets_no_hint():
    assert did_you_mean("zzz", ["alpha"]) == ""
    assert did_you_mean("alfa", ["alpha", "beta"]) == " Did you mean 'alpha'?"


@pytest.mark.usefixtures("modules")
def test_a_new_file_of_a_package_is_imported(tmp_path, monkeypatch):
    package = tmp_path / "toy_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "new.py").write_text("NOTICED = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_package(__import__("toy_package"))
    assert sys.modules["toy_package.new"].NOTICED


@pytest.mark.usefixtures("modules")
def test_user_modules_come_by_dotted_name_or_path(tmp_path, monkeypatch):
    (tmp_path / "by_name.py").write_text("VALUE = 1\n")
    (tmp_path / "by_path.py").write_text("VALUE = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    import_user_modules(["by_name", str(tmp_path / "by_path.py")])
    values = [sys.modules[name].VALUE for name in set(sys.modules) - before if "by_" in name]
    assert sorted(values) == [1, 2]


@pytest.mark.usefixtures("modules")
def test_a_network_and_a_cascade_of_a_user_s_own_file(tmp_path):
    from regcascade import build
    from regcascade.cascades import CASCADES
    from regcascade.networks import NETS

    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from regcascade.cascades.base import CASCADES\n"
        "from regcascade.cascades.strategies.cr import CR\n"
        "from regcascade.networks.base import NETS, Network\n"
        "from regcascade.networks.blocks import SameConv3d\n\n\n"
        "@NETS.register('toy_net')\n"
        "class Toy(Network):\n"
        "    def __init__(self, *, levels=(0,), flow_multiplier=1.0, input_order='fixed_first'):\n"
        "        super().__init__(levels=levels, flow_multiplier=flow_multiplier, input_order=input_order)\n"
        "        self.heads['0'] = SameConv3d(2, 3)\n"
        "        self.initialise()\n\n"
        "    def features(self, pair):\n"
        "        return {0: pair}\n\n\n"
        "@CASCADES.register('toy_cascade')\n"
        "class Backwards(CR):\n"
        "    def order(self, r, repeat):\n"
        "        return super().order(r, repeat)[::-1]\n"
    )
    known = [(registry, dict(registry._classes)) for registry in (NETS, CASCADES)]
    try:
        import_user_modules([str(tmp_path / "mine.py")])
        import_user_modules([str(tmp_path / "mine.py")])
        model = build("toy_net", "toy_cascade", n=2)
        import torch

        images = torch.rand(2, 2, 1, 16, 17, 18)
        assert model(*images).flow.shape == (2, 3, 16, 17, 18)
        assert model.order(1, "stage") == [1, 0]
    finally:
        for registry, classes in known:
            registry._classes = classes


@pytest.mark.parametrize("module", ["no_such_module_anywhere", "no/such/file.py"])
def test_missing_user_modules_are_named(module):
    with pytest.raises(ValueError, match=rf"imports: .*{module}"):
        import_user_modules([module])


@pytest.mark.usefixtures("modules")
def test_a_missing_dependency_of_a_user_module_is_named(tmp_path):
    path = tmp_path / "needy.py"
    path.write_text("import no_such_dependency\n")
    with pytest.raises(ValueError, match=r"needy\.py.*no_such_dependency"):
        import_user_modules([str(path)])

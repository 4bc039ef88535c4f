"""YAML from users: plain values, read as Hydra reads them; what multiplies, nests or runs code is refused."""

import pytest

from regcascade.cli.commands.prepare import recipe_of
from regcascade.data.datasets.set_lists import read_set_list
from regcascade.evaluation import layout
from regcascade.report.runs.sweeps import overrides_of
from regcascade.utils.files import parse_yaml, read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12))


def test_plain_values_and_aliases_are_read():
    text = "lr: 1e-4\nlist: [1.0e-05, -2E+3, x1e4, '1e4', 12e]\nd: &d {p: 1}\ne: *d"
    assert parse_yaml(text) == {
        "lr": 1e-4, "list": [1e-5, -2000.0, "x1e4", "1e4", "12e"], "d": {"p": 1}, "e": {"p": 1},
    }  # fmt: skip
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    "text",
    [
        BOMB, "a: &a [*a]", "[" * 100_000, "{a: " * 5000, "a: [", "a: 1\n---\nb: 2", "\0",
        "a: !!python/object/apply:os.getcwd []",
    ],
    ids=["bomb", "itself", "deep", "deep mapping", "syntax", "two", "binary", "code"],
)  # fmt: skip
def test_what_multiplies_nests_or_is_none_is_refused_in_one_line_that_names_the_file(text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/overrides.yaml").write_text(text, encoding="utf-8")
    readers = (read_yaml, read_set_list, lambda file: layout.read_yaml(file, "Mend it."),
               lambda file: recipe_of(str(file), []), lambda file: overrides_of(file.parent))  # fmt: skip
    for read in readers:
        with pytest.raises(ValueError, match=r"(config|overrides)\.yaml cannot be read") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x81")
    with pytest.raises(ValueError, match=r"binary\.yaml cannot be read"):
        read_yaml(tmp_path / "binary.yaml")

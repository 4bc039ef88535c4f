"""The HTML page of evaluated runs: what it holds, that it loads nothing, and that no text of a file becomes markup."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from phantom_runs import failed, write_run
from PIL import Image

from regcascade.cli.main import main
from regcascade.report.figures.quality import worst_first
from regcascade.report.html.page import write_report
from regcascade.report.runs.provenance import facts_table, provenance, software
from regcascade.report.runs.run import read_runs
from regcascade.utils.files import file_hash

EVIL = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page, each with its attributes, and its text; every element must be closed in turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += " " + data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    def images(self) -> list[Image.Image]:
        prefix = "data:image/webp;base64,"
        assert all(source.startswith(prefix) for source in self.values("src"))
        return [Image.open(io.BytesIO(base64.b64decode(source[len(prefix) :]))) for source in self.values("src")]


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run")


def report(folders: list[Path], *options: str) -> Page:
    out = folders[0].parent / "out" / "page.html"
    main(["report", *map(str, folders), "--out", str(out), *options])
    return Page(out)


def test_the_page_of_one_run_has_its_numbers_pictures_and_where_they_come_from(run, capsys):
    (run / "config.yaml").write_text("seed: 12345\n")
    (run / "git.json").write_text(json.dumps({"commit": "c0ffee", "branch": "main", "dirty": True}))
    page = report([run], "--worst", "2")
    assert "Left out" not in capsys.readouterr().out
    table = pd.read_csv(run / "pairs.csv")
    for shown in (
        "Before registration",
        f"{table['dice_mean'].mean():.3f} ({table['dice_mean'].std():.3f})",
        f"{table['dice_liver_before'].mean():.3f}",
        "Before registration - run",  # one run is tested against what was before
        "The worst 2 pairs",
        "seed: 12345",
        "code: dirty yes",
        "voxelmorph",  # what the checkpoint says of itself
        file_hash(run / "checkpoints/best.ckpt"),
        file_hash(run / "pairs.csv"),
        "the same file",
        software()["torch"],
    ):
        assert shown in re.sub(r"\s+", " ", page.text), shown
    charts, pairs = page.images()[:3], page.images()[3:]
    assert len(pairs) == 2
    assert all(image.width == pytest.approx(180 / 25.4 * 200, abs=1) for image in [*charts, *pairs])
    assert "phantom_0001 registered onto phantom_0000 by run." in page.text


def test_the_page_loads_nothing(run):
    page = report([run], "--worst", "1")
    assert {"script", "link", "iframe", "object", "form", "base"}.isdisjoint(tag for tag, _ in page.elements)
    assert not re.search(r"url\(|@import", page.source)
    assert all(link.startswith("#") for link in page.values("href"))
    assert {link[1:] for link in page.values("href")} <= set(page.values("id"))
    assert not page.values("srcset")
    assert any("default-src 'none'" in content for content in page.values("content"))
    assert len(page.values("id")) == len(set(page.values("id")))
    assert all(page.values("alt"))


def test_several_runs_are_compared_and_those_without_a_checkpoint_have_no_pictures(run, tmp_path, capsys):
    other = write_run(tmp_path / "n2", n=2, gain=0.3)
    baseline = write_run(tmp_path / "affine", gain=0.2, checkpoint=False)
    page = report([run, other, baseline], "--names", "VM", "VM 2", "affine", "--worst", "1")
    text = re.sub(r"\s+", " ", page.text)
    for difference in ("VM - VM 2", "VM - affine", "VM 2 - affine"):
        assert difference in text
    assert "Before registration -" not in text  # in the table only
    assert len(page.images()) == 4 + 3  # Dice against n too; the pair by two of the runs, and side by side
    assert "Pictures of affine:" in text and "names no checkpoint" in text
    assert "Left out: Pictures of affine:" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_no_text_of_a_file_becomes_markup(run, tmp_path):
    table = pd.read_csv(run / "pairs.csv")
    table = table.replace("phantom_0000", EVIL).rename(columns={"dice_liver": f"dice_{EVIL}"})
    table.to_csv(run / "pairs.csv", index=False)
    summary = json.loads((run / "summary.json").read_text())
    summary["measures"][f"dice_{EVIL}"] = summary["measures"].pop("dice_liver")
    summary |= {EVIL: EVIL, "device": EVIL, "packages": {EVIL: "1"}, "checkpoint": EVIL}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "config.yaml").write_text(f"# </pre>{EVIL}\n")
    (run / "git.json").write_text(json.dumps({"branch": EVIL}))
    page = report([run], "--names", EVIL)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(EVIL) >= 8  # as text, and no template either
    known = {"class", "id", "lang", "charset", "content", "http-equiv", "name", "href", "src", "alt", "scope"}
    known |= {"tabindex", "role", "aria-label"}
    assert {name for _, attributes in page.elements for name in attributes} <= known


def test_the_worst_pairs_are_by_the_mean_over_methods_and_only_those_that_all_have():
    index = pd.MultiIndex.from_tuples([("a", "b"), ("a", "c"), ("b", "c"), ("c", "a")])
    first = pd.DataFrame({"dice_mean": [0.1, 0.5, 0.2, 0.0]}, index=index)
    second = pd.DataFrame({"dice_mean": [0.9, 0.1, 0.2, float("nan")]}, index=index)
    assert list(worst_first({"x": first, "y": second})[:2]) == [("b", "c"), ("a", "c")]
    assert list(worst_first({"x": first})) == [("c", "a"), ("a", "b"), ("b", "c"), ("a", "c")]


def test_a_checkpoint_that_changed_or_went_is_told_and_its_pictures_are_left_out(run, tmp_path):
    (run / "checkpoints/best.ckpt").write_bytes(b"another")
    assert "another file, as its hash differs" in provenance(run).facts["checkpoint now"]
    page = report([run], "--worst", "1")
    assert "is not what" in page.text and len(page.images()) == 3
    (run / "checkpoints/best.ckpt").unlink()
    assert provenance(run).facts["checkpoint now"] == "not there"


def test_a_moved_run_still_has_its_checkpoint(run, tmp_path):
    moved = run.rename(tmp_path / "moved")
    found = provenance(moved)
    assert found.facts["checkpoint now"] == "the same file"
    assert yaml.safe_load(found.texts["what the checkpoint says of itself"])["n"] == 1


def test_facts_that_a_run_does_not_have_are_dashes(run, tmp_path):
    other = write_run(tmp_path / "other", checkpoint=False)
    (other / "git.json").write_text("no JSON")
    (run / "git.json").write_text(json.dumps({"branch": "main"}))
    shown = facts_table(["a", "b"], [provenance(run), provenance(other)]).set_index("")
    assert list(shown.loc["code: branch"]) == ["main", "-"]
    assert list(shown.loc["checkpoint"]) == [str(run / "checkpoints/best.ckpt"), "-"]


def test_without_worst_pairs_there_are_no_pictures_and_nothing_is_missing(tmp_path, capsys):
    baseline = write_run(tmp_path / "baseline", checkpoint=False)
    page = report([baseline], "--worst", "0")
    assert len(page.images()) == 3
    assert "worst" not in page.values("id")
    assert "Left out" not in capsys.readouterr().out


def test_what_is_wrong_is_said_before_anything_is_written(run, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out" / "page.html")]
    unfinished = write_run(tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    assert "did not end" in failed(["report", str(unfinished), *out], capsys)
    fewer = write_run(tmp_path / "fewer")
    table = pd.read_csv(fewer / "pairs.csv")[:4]
    table.to_csv(fewer / "pairs.csv", index=False)
    summary = {"pairs": 4, "measures": {}}
    (fewer / "summary.json").write_text(json.dumps(summary))
    assert "different pairs" in failed(["report", str(run), str(fewer), *out], capsys)
    assert "must be 0 or more" in failed(["report", str(run), *out, "--worst", "-1"], capsys)
    assert "is a folder; name the file" in failed(["report", str(run), "--out", str(tmp_path)], capsys)
    with pytest.raises(ValueError, match="is a folder; name the file"):
        write_report([run], read_runs([run]), tmp_path)
    assert not (tmp_path / "out").exists()


def test_runs_of_a_sweep_that_did_not_end_are_told(tmp_path):
    sweep = tmp_path / "sweep"
    write_run(sweep / "0")
    (sweep / "1").mkdir()
    (sweep / "1" / "config.yaml").touch()
    page = report([sweep], "--worst", "0")
    assert f"{sweep / '1'} has no results (yet)." in page.text

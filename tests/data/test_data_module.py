import threading
import time
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from regcascade.data.case import Case, CaseSet
from regcascade.data.module import RegistrationData
from regcascade.data.splits import Split

SIZE = (7, 6, 5)


class Numbered(CaseSet):
    """Random volumes; some have no labels. It counts how often each is read."""

    def __init__(self, count: int = 8, unlabelled: tuple[int, ...] = ()) -> None:
        self.names = [f"case_{index}" for index in range(count)]
        self.label_names = {1: "one"}
        self.unlabelled = unlabelled
        self.reads = [0] * count

    @property
    def preprocessing(self) -> dict:
        return {"size": list(SIZE)}

    def __getitem__(self, index: int) -> Case:
        self.reads[index] += 1
        image = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(index))
        labels = (image > 0.5).to(torch.int16) if self.labelled(index) else None
        return Case(self.names[index], image, (1.0, 1.0, 1.0), labels)

    def labelled(self, index: int) -> bool:
        return index not in self.unlabelled


class Recorder(LightningModule):
    """Notes the moving images that each stage sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list] = {"train": [], "val": [], "test": []}

    def training_step(self, batch, index):
        self.note("train", batch)
        return self.weight**2

    def validation_step(self, batch, index):
        self.note("val", batch)

    def test_step(self, batch, index):
        self.note("test", batch)

    def note(self, stage, batch):
        names = list(zip(batch["fixed_name"], batch["moving_name"], strict=True))
        self.seen[stage].append((names, batch["moving"].clone(), batch.get("moving_labels")))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(cases: Numbered | None = None, **options) -> RegistrationData:
    cases = cases or Numbered()
    options = {"batch_size": 2, "pairs_per_epoch": 10, "validation_pairs": 4, **options}
    return RegistrationData(cases, Split(cases.names[:5], cases.names[5:]), **options)


def trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", **{**quiet, "enable_checkpointing": False, **options})


@pytest.fixture(autouse=True)
def no_advice():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
        warnings.filterwarnings("ignore", ".*litlogger.*")
        yield


def test_attributes():
    built = data()
    assert built.size == SIZE and built.preprocessing == {"size": list(SIZE)}
    assert built.label_names == {1: "one"} and built.has_labels
    assert len(built.validation_pairs) == 4
    assert {name for pair in built.validation_pairs for name in pair} <= {"case_5", "case_6", "case_7"}
    assert len(data(validation_pairs=None).validation_pairs) == 6
    assert not data(Numbered(unlabelled=(5,)), validation_pairs=None).has_labels
    assert data(Numbered(unlabelled=(0,))).has_labels


def test_only_training_pairs_are_augmented():
    model, built = Recorder(), data(augmentation="bspline")
    run = trainer(max_epochs=1)
    run.fit(model, built)
    run.test(model, built)
    originals = {case.name: case.image for case in Numbered()}
    for stage in ("val", "test"):
        for names, moving, _ in model.seen[stage]:
            assert torch.equal(moving[0], originals[names[0][1]])
    for names, moving, _ in model.seen["train"]:
        for item, (_, name) in enumerate(names):
            assert not torch.equal(moving[item], originals[name])
    assert [pair for names, _, _ in model.seen["test"] for pair in names] == built.validation_pairs
    assert built.state_dict() == {"consumed_pairs": 10}


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(tmp_path, stop):
    options = {"augmentation": "bspline", "seed": 4}
    whole = Recorder()
    trainer(max_steps=12).fit(whole, data(**options))

    first, second = Recorder(), Recorder()
    checkpoint = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    trainer(max_steps=stop, callbacks=[checkpoint], enable_checkpointing=True).fit(first, data(**options))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*not resumable.*")
        trainer(max_steps=12).fit(second, data(**options), ckpt_path=tmp_path / "last.ckpt", weights_only=True)

    pieces = first.seen["train"] + second.seen["train"]
    assert len(pieces) == len(whole.seen["train"]) == 12
    for (names, moving, _), (wanted_names, wanted, _) in zip(pieces, whole.seen["train"], strict=True):
        assert names == wanted_names
        assert torch.equal(moving, wanted)
    assert len({tuple(names) for names, _, _ in pieces}) > 6


def test_labels_only_if_every_scan_of_the_part_has_them():
    model = Recorder()
    trainer(max_epochs=1).fit(model, data(Numbered(unlabelled=(0,))))
    assert all(labels is None for _, _, labels in model.seen["train"])
    assert all(labels is not None for _, _, labels in model.seen["val"])


def test_scans_are_read_before_training_and_not_for_a_test():
    cases = Numbered()
    built = data(cases, validation_pairs=None)
    assert cases.reads == [0] * 8
    built.setup("test")
    assert cases.reads == [0] * 8
    built.setup("fit")
    built.setup("fit")
    assert cases.reads == [1] * 8
    data(cases, validate=False).setup("fit")
    assert cases.reads == [1] * 8


def test_pairs_from_a_file_may_name_any_scan(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("fixed,moving\ncase_0,case_7\n")
    built = data(pairs=str(path))
    assert built.validation_pairs == [("case_0", "case_7")]
    with pytest.warns(UserWarning, match="1 scans of the validation pairs also train"):
        built.train_dataloader()


def test_overfit_batches_repeats_its_batch():
    model = Recorder()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*overfit.*")
        trainer(max_epochs=2, overfit_batches=1).fit(model, data())
    (first, _, _), (second, _, _) = model.seen["train"]
    assert first == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size=0 is not valid"),
        ({"num_workers": -1}, r"data\.num_workers=-1 is not valid"),
        ({"seed": -1}, r"data\.seed=-1 is not valid"),
        ({"validation_pairs": 0}, r"data\.validation_pairs=0 is not valid"),
        ({"pairs_per_epoch": 1}, r"data\.pairs_per_epoch=1 is less than data\.batch_size=2"),
        ({"augmentation": "spline"}, r"data\.augmentation=spline is not valid"),
        ({"pairs": "none.csv"}, r"data\.pairs=none\.csv: there is no such file"),
    ],
)
def test_a_bad_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data(**options)


def test_a_split_that_leaves_nothing_is_refused():
    cases = Numbered()
    with pytest.raises(ValueError, match="leaves 1 scans for validation"):
        RegistrationData(cases, Split(cases.names[1:], cases.names[:1]))
    built = RegistrationData(cases, Split(cases.names[:1], cases.names[1:]))
    with pytest.raises(ValueError, match="leaves 1 scans for training"):
        trainer(max_steps=1).fit(Recorder(), built)
    trainer().test(Recorder(), built)


def test_a_batch_of_more_pairs_than_there_are_is_told():
    cases = Numbered()
    with pytest.warns(UserWarning, match=r"data\.batch_size=21 is more than the 20 pairs that can be drawn"):
        data(cases, batch_size=21, pairs_per_epoch=30).train_dataloader()
    with pytest.warns(UserWarning, match="more than the 1 pairs"):
        listed = Split(cases.names[:2], [], pairs=[("case_5", "case_6")], train_pairs=[("case_0", "case_1")])
        RegistrationData(cases, listed, batch_size=2).train_dataloader()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(cases, batch_size=20, pairs_per_epoch=20).train_dataloader()


def test_no_thread_of_the_reading_pool_outlives_a_damaged_scan():
    class Damaged(Numbered):
        def __getitem__(self, index: int) -> Case:
            if index == 0:
                raise ValueError("case_0 is damaged")
            time.sleep(0.05)
            return super().__getitem__(index)

    cases = Damaged(40)
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="case_0 is damaged"):
        RegistrationData(cases, Split(cases.names[:36], cases.names[36:])).setup("fit")
    assert set(threading.enumerate()) <= before
    assert sum(cases.reads) < 40

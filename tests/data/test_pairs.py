from collections import Counter
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from regcascade.data.case import Case, CaseSet
from regcascade.data.pairs import (
    DrawnPairs,
    ListedPairs,
    PairSampler,
    Progress,
    RandomPairs,
    collate,
    collate_images,
    read_pairs,
    some_pairs,
)


class Numbered(CaseSet):
    """Case k is a volume full of k."""

    def __init__(self, count: int, unlabelled: Sequence[int] = (), points: int = 2) -> None:
        self.names = [f"case_{index}" for index in range(count)]
        self.label_names = {1: "one"}
        self.unlabelled = set(unlabelled)
        self.points = points

    def __getitem__(self, index: int) -> Case:
        image = torch.full((1, 3, 4, 5), float(index))
        labels = None if index in self.unlabelled else image.to(torch.int16)
        points = torch.full((self.points, 3), float(index)) if self.points else None
        return Case(self.names[index], image, (1.0, 2.0, 3.0 + index), labels, points)


def pairs(seed: int = 0, length: int = 12, members: Sequence[int] = range(6)) -> RandomPairs:
    return RandomPairs(Numbered(6), [(members, 1.0)], seed, length)


def test_draws_are_uniform_over_the_ordered_pairs():
    drawn = pairs()
    counts = Counter(drawn.draw(k) for k in range(6000))
    assert len(counts) == 30 and all(fixed != moving for fixed, moving in counts)
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 58.3  # 29 degrees of freedom, p = 0.001; the draws are the same in every run


def test_a_draw_depends_on_the_seed_and_its_number_alone():
    first, second = pairs(), pairs()
    late = [first.draw(k) for k in (10**12, 7, 3)]
    assert late == [second.draw(10**12), second.draw(7), second.draw(3)]
    assert [pairs(1).draw(k) for k in range(20)] != [first.draw(k) for k in range(20)]
    # Pinned, so that a checkpoint resumes with the same pairs in a later version.
    assert [first.draw(k) for k in range(4)] == [(5, 4), (2, 5), (3, 5), (5, 1)]


def test_members_alone_are_drawn():
    drawn = pairs(members=(1, 4))
    assert {drawn.draw(k) for k in range(30)} == {(1, 4), (4, 1)}
    with pytest.raises(ValueError, match="two scans; the set has 1"):
        pairs(members=(1,))


def test_ranks_and_epochs_share_out_consecutive_draws():
    progress = Progress()
    samplers = [PairSampler(pairs(length=13), progress, 2, 3, rank) for rank in range(3)]
    first = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [4, 4, 4]
    assert sorted(k for draws in first for k in draws) == list(range(12))
    progress.consumed = 12
    assert sorted(k for sampler in samplers for k in sampler) == list(range(12, 24))


def test_an_epoch_shorter_than_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"pairs_per_epoch=12 is less than .* raise it to 20"):
        PairSampler(pairs(), Progress(), 10, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    drawn = pairs()
    loader = DataLoader(drawn, 3, sampler=PairSampler(drawn, Progress(), 3), num_workers=workers, collate_fn=collate)
    names = [pair for batch in loader for pair in zip(batch["fixed_name"], batch["moving_name"], strict=True)]
    wanted = [drawn.draw(k) for k in range(12)]
    assert names == [(f"case_{fixed}", f"case_{moving}") for fixed, moving in wanted]


def test_a_batch_keeps_fixed_and_moving_apart():
    batch = collate([pairs()[k] for k in range(3)])
    roles = np.array([pairs().draw(k) for k in range(3)])
    for column, role in enumerate(("fixed", "moving")):
        assert batch[role].shape == (3, 1, 3, 4, 5)
        assert batch[role][:, 0, 0, 0, 0].tolist() == roles[:, column].tolist()
        assert batch[f"{role}_labels"].dtype == torch.int64
        assert batch[f"{role}_labels"][:, 0, 0, 0, 0].tolist() == roles[:, column].tolist()
        assert batch[f"{role}_points"][:, 1, 2].tolist() == roles[:, column].tolist()
        assert batch[f"{role}_spacing"][:, 2].tolist() == (roles[:, column] + 3).tolist()
        assert batch[f"{role}_name"] == [f"case_{index}" for index in roles[:, column]]


def test_labels_and_points_only_if_all_have_them():
    cases = Numbered(3, unlabelled=[2], points=0)
    batch = collate([(cases[0], cases[1]), (cases[1], cases[2])])
    assert not {"fixed_labels", "moving_labels", "fixed_points", "moving_points"} & set(batch)
    assert "fixed_labels" in collate([(cases[0], cases[1])])
    assert "fixed_labels" not in collate_images([(cases[0], cases[1])])


def test_unlike_cases_cannot_share_a_batch():
    with pytest.raises(ValueError, match="case_1, case_0 have different numbers of points"):
        collate([(Numbered(2, points=1)[1], Numbered(2, points=2)[0])])


def test_sampled_pairs():
    names = [f"case_{index}" for index in range(7)]
    every = list(permutations(names, 2))
    some = some_pairs(every, 20, 0)
    assert len(set(some)) == 20 and set(some) <= set(every)
    assert some == some_pairs(every, 20, 0) != some_pairs(every, 20, 1)
    # Pinned: a run of another year and machine must validate on the same pairs.
    assert some[:2] == [("case_0", "case_2"), ("case_0", "case_3")]
    assert some_pairs(every, 100, 0) == some_pairs(every, None, 0) == every


def test_listed_pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes("\ufefffixed,note,moving\ncase_2,x,case_0\r\n\ncase_0,y, case_2\n".encode())
    listed = read_pairs(path, Numbered(3).names)
    assert listed == [("case_2", "case_0"), ("case_0", "case_2")]
    fixed, moving = ListedPairs(Numbered(3), listed)[0]
    assert (fixed.name, moving.name) == ("case_2", "case_0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column fixed and no column moving"),
        (b"fixed;moving\na;b\n", "has no column"),
        (b"fixed\ncase_0\n", "has no column moving"),
        (b"fixed,moving\n", "lists no pairs"),
        (b"fixed,moving\ncase_0,case_9\n", "line 2: there is no scan 'case_9'"),
        (b"fixed,moving\ncase_0\n", "line 2: there is no scan None"),
        (b"fixed,moving\ncase_0,case_1\ncase_1,case_1\n", "line 3: 'case_1' is paired with itself"),
        (b"fixed,moving\ncase_0,case_1\ncase_0,case_1\n", "line 3 repeats the pair of line 2"),
        (b"\xff\xfe\x00\x01", "is not a CSV text file"),
    ],
)
def test_a_pair_list_that_is_wrong_is_refused_by_file_and_line(tmp_path, content, message):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"pairs\.csv.*{message}"):
        read_pairs(path, Numbered(3).names)


def test_no_pair_list():
    with pytest.raises(ValueError, match=r"data\.pairs=none\.csv: there is no such file"):
        read_pairs("none.csv", [])


def test_listed_pairs_are_drawn_uniformly_and_by_their_number_alone():
    listed = [(0, 1), (2, 1), (4, 5)]
    drawn = DrawnPairs(Numbered(6), listed, 0, 12)
    counts = Counter(drawn.draw(k) for k in range(3000))
    assert set(counts) == set(listed) and all(abs(count - 1000) < 100 for count in counts.values())
    assert [DrawnPairs(Numbered(6), listed, 0, 99).draw(k) for k in (7, 3)] == [drawn.draw(7), drawn.draw(3)]
    assert [case.name for case in drawn[3]] == [f"case_{k}" for k in drawn.draw(3)] and len(drawn) == 12


def test_some_of_the_pairs_keep_their_order():
    pairs = [(str(k), str(k + 1)) for k in range(20)]
    some = some_pairs(pairs, 7, 3)
    assert len(set(some)) == 7 and some == sorted(some, key=pairs.index) and some == some_pairs(pairs, 7, 3)
    assert some_pairs(pairs, None, 0) == some_pairs(pairs, 99, 0) == pairs


def test_pairs_with_fewer_points_get_missing_ones():
    few, many = Numbered(2, points=2), Numbered(2, points=5)
    batch = collate([(few[0], few[1]), (many[0], many[1])])
    assert batch["fixed_points"].shape == batch["moving_points"].shape == (2, 5, 3)
    assert batch["fixed_points"][0, 2:].isnan().all() and not batch["fixed_points"][1].isnan().any()
    assert (batch["moving_points"][:, :2] == 1).all()
    with pytest.raises(ValueError, match="different numbers of points"):
        collate([(few[0], many[1])])

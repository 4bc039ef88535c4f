"""Shared weights, a network for each stage, and options that make no sense."""

import pytest
import torch
from torch.func import functional_call

from regcascade import build, cascades

SIZE = (16, 16, 16)


def images(size=SIZE, batch=1):
    return torch.rand(2, batch, 1, *size, generator=torch.Generator().manual_seed(0))


class TestSharedWeights:
    @pytest.fixture(params=[name for name in cascades.names() if name != "one_by_one"])
    def strategy(self, request):
        return request.param

    def test_there_is_one_set(self, strategy):
        with torch.device("meta"):
            alone, three = build("voxelmorph", strategy, n=1), build("voxelmorph", strategy, n=3)
            shared = build("voxelmorph", {"name": strategy, "share_weights": True}, n=3)

        def count(model):
            return sum(p.numel() for p in model.parameters())

        assert count(three) == 3 * count(alone)
        assert count(shared) == count(alone)
        assert shared.order(1, "stage") == [0, 0, 0]
        assert shared.nets[0].flow_multiplier == pytest.approx(1 / 3)

    def test_it_computes_what_equal_stages_compute(self, strategy):
        torch.manual_seed(0)
        shared = build("voxelmorph", {"name": strategy, "share_weights": True}, n=2)
        with torch.no_grad():
            for head in shared.nets[0].heads.values():
                head.weight.mul_(2000)
        plain = build("voxelmorph", strategy, n=2)
        state = {
            part + f".{k}." + rest: value
            for key, value in shared.state_dict().items()
            for part, _, rest in [key.split(".", 2)]
            for k in range(2)
        }
        with torch.no_grad():
            expected = shared(*images()).flow
            assert expected.abs().max() > 0.05
            torch.testing.assert_close(functional_call(plain, state, tuple(images())).flow, expected)

    def test_different_networks_cannot_share(self, strategy):
        with pytest.raises(ValueError, match=r"share_weights=true needs the same network"):
            build(cascade={"name": strategy, "share_weights": True, "stages": ["voxelmorph", "vtn"]})


@pytest.mark.parametrize("strategy", cascades.names())
def test_stages_may_be_different_networks(strategy):
    narrow = {"name": "voxelmorph", "convolutions": 2}
    with torch.device("meta"):
        model = build("drnet", {"name": strategy, "stages": ["vtn", narrow, "voxelmorph"]})
    assert model.n == 3
    assert [type(net).__name__ for net in model.nets] == ["VTN", "VoxelMorph", "VoxelMorph"]
    assert len(model.nets[1].passes[0].bottom) == 4


class TestBadOptions:
    def test_numbers_that_make_no_cascade(self):
        with pytest.raises(ValueError, match=r"n=0: a cascade has one stage or more"):
            build(n=0)
        with pytest.raises(ValueError, match=r"n=-1"):
            build(n=-1)
        with pytest.raises(ValueError, match=r"cascade.stages names 2 networks and n=3"):
            build(cascade={"name": "cr", "stages": ["vtn", "vtn"]}, n=3)

    def test_names_and_options(self):
        with pytest.raises(ValueError, match=r"Unknown cascade 'mrc'. Known: all_stages, cr, mcr, one_by_one"):
            build(cascade="mrc")
        with pytest.raises(ValueError, match=r"cascade 'cr' has no option 'accumulate'"):
            build(cascade={"name": "cr", "accumulate": "add"})
        with pytest.raises(ValueError, match=r"cascade.accumulate=multiply is not valid. Known: add, compose"):
            build(cascade={"name": "mcr", "accumulate": "multiply"})
        with pytest.raises(ValueError, match=r"affine=rigid is not valid. Known: none, learned, frozen"):
            build(affine="rigid")
        with pytest.raises(ValueError, match=r"affine=learned has no option 'checkpint'"):
            build(affine={"name": "learned", "checkpint": "x"}, size=SIZE)
        with pytest.raises(ValueError, match=r"affine=learned needs size"):
            build(affine="learned")
        with pytest.raises(ValueError, match=r"one_by_one.*cannot share"):
            build(cascade={"name": "one_by_one", "share_weights": True}, n=2)

    def test_what_the_program_sets_is_no_option(self):
        for option in ("levels", "flow_multiplier"):
            with pytest.raises(ValueError, match=f"network 'voxelmorph' has no option '{option}'"):
                build({"name": "voxelmorph", option: 1})
        for option in ("model", "n", "affine"):
            with pytest.raises(ValueError, match=f"cascade 'cr' has no option '{option}'"):
                build(cascade={"name": "cr", option: 1})
        with pytest.raises(ValueError, match=r"affine=learned has no option 'size'. Known: head_init"):
            build(affine={"name": "learned", "size": SIZE}, size=SIZE)

    def test_repeats(self):
        model = build(n=1)
        with pytest.raises(ValueError, match=r"r=0"):
            model(*images(), r=0)
        with pytest.raises(ValueError, match=r"repeat=both is not valid. Known: stage, chain"):
            model(*images(), repeat="both")

    def test_a_side_below_16(self):
        with pytest.raises(ValueError, match=r"16 voxels a side or more; got \(1, 1, 16, 15, 16\)"):
            build()(*images((16, 15, 16)))

    @pytest.mark.usefixtures("unchecked")
    def test_images_that_do_not_fit(self):
        with pytest.raises(ValueError, match="bring them to one size"):
            build()(torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 17))
        with pytest.raises(ValueError, match=r"\(B, 1, X, Y, Z\)"):
            build()(torch.rand(1, 2, 16, 16, 16), torch.rand(1, 2, 16, 16, 16))
        with pytest.raises(ValueError, match=r"\(B, 1, X, Y, Z\)"):
            build()(torch.rand(16, 16, 16), torch.rand(16, 16, 16))

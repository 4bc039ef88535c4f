"""The published networks as TensorFlow computes them, in NumPy float64: channels last, loops over taps."""

import numpy as np
from scipy.ndimage import map_coordinates


def pad_before(side, kernel, stride):
    """TensorFlow's SAME padding of one axis: zeros before the first voxel, output side."""
    out = -(-side // stride)
    return max((out - 1) * stride + kernel - side, 0) // 2, out


def convolved(x, kernel, bias=0.0, stride=1):
    """`(X, Y, Z, in)` by a kernel `(k, k, k, in, out)`: a correlation, as in every framework."""
    k = kernel.shape[0]
    before, sides = zip(*(pad_before(side, k, stride) for side in x.shape[:3]), strict=True)
    padded = np.zeros((*(side + 2 * k for side in x.shape[:3]), x.shape[3]))
    padded[tuple(slice(b, b + side) for b, side in zip(before, x.shape[:3], strict=True))] = x
    out = np.zeros((*sides, kernel.shape[4]))
    for tap in np.ndindex(k, k, k):
        window = tuple(slice(t, t + stride * n, stride) for t, n in zip(tap, sides, strict=True))
        out += padded[window][: sides[0], : sides[1], : sides[2]] @ kernel[tap]
    return out + bias


def up_convolved(x, kernel, shape, stride=2):
    """`(X, Y, Z, in)` by a kernel `(k, k, k, out, in)`: the adjoint of a SAME convolution from `shape`."""
    k = kernel.shape[0]
    spread = np.zeros((*(stride * side + k for side in x.shape[:3]), kernel.shape[3]))
    for tap in np.ndindex(k, k, k):
        places = tuple(slice(t, t + stride * side, stride) for t, side in zip(tap, x.shape[:3], strict=True))
        spread[places] += x @ kernel[tap].T
    before = [pad_before(side, k, stride)[0] for side in shape]
    return spread[tuple(slice(b, b + side) for b, side in zip(before, shape, strict=True))]


def leaky(x, slope=0.1):
    return np.where(x > 0, x, slope * x)


def doubled(x):
    """Keras's UpSampling3D."""
    return x.repeat(2, 0).repeat(2, 1).repeat(2, 2)


class Scope:
    """Layers of one network by name, from its variables."""

    def __init__(self, variables, scope):
        self.variables = {
            name.removeprefix(scope): np.float64(value) for name, value in variables.items() if name.startswith(scope)
        }

    def conv(self, x, name, stride=1):
        return convolved(x, self.variables[f"{name}/W"], self.variables[f"{name}/b"], stride)

    def act(self, x, name, stride=1):
        return leaky(self.conv(x, name, stride))

    def up(self, x, name, shape):
        return up_convolved(x, self.variables[f"{name}/W"], shape)

    def encoder(self, pair):
        maps, x = [], pair
        for k in range(1, 7):
            x = self.act(x, f"conv{k}", 2)
            if k > 2:
                x = self.act(x, f"conv{k}_1")
            maps.append(x)
        return maps

    def vtn(self, fixed, moving):
        pair = np.stack([fixed, moving], -1)
        maps = [pair, *self.encoder(pair)]
        x = maps[6]
        for k in (5, 4, 3, 2, 1):
            shape = maps[k].shape[:3]
            features = leaky(self.up(x, f"deconv{k}", shape))
            prediction = self.up(self.conv(x, f"pred{k + 1}"), f"upsamp{k + 1}to{k}", shape)
            x = np.concatenate([maps[k], features, prediction], -1)
        return 20 * self.up(x, "upsamp1to0", fixed.shape)

    def voxelmorph(self, fixed, moving):
        pair = np.stack([fixed, moving], -1)
        one = self.act(pair, "conv1", 2)
        two = self.act(one, "conv2", 2)
        three = self.act(two, "conv3", 2)
        x = self.act(self.act(three, "conv4", 2), "decode4")
        x = self.act(np.concatenate([doubled(x), three], -1), "decode3")
        x = self.act(np.concatenate([doubled(x), two], -1), "decode2")
        x = self.act(np.concatenate([doubled(x), one], -1), "decode1")
        x = self.act(x, "decode1_1")
        x = self.act(self.act(np.concatenate([doubled(x), pair], -1), "decode0"), "decode0_1")
        return self.conv(x, "flow")

    def affine(self, fixed, moving):
        """A and the displacement about the middle of the volume."""
        last = self.encoder(np.stack([fixed, moving], -1))[-1]
        w = np.einsum("xyzi,xyzio->o", last, self.variables["conv7_W/W"]).reshape(3, 3)
        b = np.einsum("xyzi,xyzio->o", last, self.variables["conv7_b/W"])
        centred = np.indices(fixed.shape).transpose(1, 2, 3, 0) - (np.array(fixed.shape) - 1) / 2
        return w + np.eye(3), centred @ w.T + b


def pulled(volume, flow):
    """`volume(p + flow(p))`, clamped to the border."""
    at = (np.indices(flow.shape[:3]).transpose(1, 2, 3, 0) + flow).transpose(3, 0, 1, 2)
    return map_coordinates(volume, at, order=1, mode="nearest")


def cascade(variables, networks, fixed, moving):
    """The total flow `(X, Y, Z, 3)` of a released model: an affine stem, then the named networks in turn."""
    matrix, total = Scope(variables, "gaffdfrm/affine_stem/").affine(fixed, moving)
    for k, network in enumerate(networks):
        scope = Scope(variables, f"gaffdfrm/deform_stem_{k}/")
        flow = getattr(scope, network)(fixed, pulled(moving, total)) / len(networks)
        if k == 0:
            total = flow @ matrix.T + total
        else:
            total = np.stack([pulled(total[..., a], flow) for a in range(3)], -1) + flow
    return total

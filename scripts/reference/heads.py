"""Writes unet_heads.safetensors and unet_heads.json: a U-Net whose attention has several heads.

The network is tiny but has three levels, images that are not square, heads of
four channels (two heads at one level, three at the next and in the middle), and
the conventions that diffusers' UNet2DModel has by default: symmetric padding
when halving, the cosine half of the time embedding first, no frequency shift.
Its weights are random, with scales and biases far enough from 1 and 0 that each
of them matters.

    python3 heads.py [output folder, default ../../testdata]

Needs numpy and torch. The weights, x and t depend on numpy's generator alone;
eps is reproducible on one platform, and within its noise floor on others.
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch

import stio
from unet import UNet

CONFIG = {
    "sample_size": [8, 12],
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [4, 8, 12],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "norm_eps": 1e-05,
    "attention_head_dim": 4,
    "dropout": 0.0,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
SEED = 20
TIMESTEPS = [3, 870]


def randomize(net, rng):
    """Fills the parameters, in the order of their names, from a numpy generator."""
    for name, param in sorted(net.named_parameters()):
        noise = rng.standard_normal(tuple(param.shape))
        if param.dim() > 1:
            fan_in = param.numel() // param.shape[0]
            # Sharper than usual queries and keys, so that heads attend differently.
            gain = 2.0 if ".to_q." in name or ".to_k." in name else 1.0
            noise *= gain / math.sqrt(fan_in)
        elif "norm" in name and name.endswith(".weight"):
            noise = 1 + 0.25 * noise
        else:
            noise *= 0.15
        param.data = torch.from_numpy(noise.astype(np.float32))


def main():
    here = pathlib.Path(__file__).resolve().parent
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent.parent / "testdata"
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    net = UNet(**CONFIG).eval()
    rng = np.random.default_rng(SEED)
    randomize(net, rng)
    height, width = CONFIG["sample_size"]
    x = rng.standard_normal((len(TIMESTEPS), CONFIG["in_channels"], height, width)).astype(np.float32)
    t = np.array(TIMESTEPS, dtype=np.int64)
    weights = {name: value.numpy().copy() for name, value in net.state_dict().items()}

    with torch.no_grad():
        eps = net(torch.from_numpy(x), torch.from_numpy(t)).numpy()
        eps64 = net.double()(torch.from_numpy(x).double(), torch.from_numpy(t)).numpy()
    floor = float(np.abs(eps - eps64).max() / np.abs(eps64).max())

    stio.save(out / "unet_heads.safetensors",
              {**weights, "golden.x": x, "golden.t": t, "golden.eps": eps, "golden.eps_f64": eps64}, {"format": "pt"})
    golden = {
        "parameters": sum(w.size for w in weights.values()),
        "f32_vs_f64": {"eps": floor},
        "note": "f32_vs_f64 is max|a-b|/max|b|: the float32 noise floor of this reference",
    }
    document = {"_class_name": "UNet2DModel", **CONFIG, "golden": golden}
    (out / "unet_heads.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"unet_heads: {golden['parameters']} parameters, eps float32 against float64 {floor:.2g}")


if __name__ == "__main__":
    main()

"""Ten optimiser steps of the golden U-Net, so that a whole training step can be compared.

    python3 steps.py [folder of the golden files, default ../../testdata]

Reads unet_tiny.safetensors and writes unet_tiny_steps.safetensors beside it: `loss` [10] and `grad_norm` [10]
before each step, and the parameters (`param.NAME`) and their averages (`ema.NAME`) after the last. Every step
sees the same x, t and target. Computed in float64, stored in float32.
"""
import os
import sys

import numpy as np
import torch

import stio
from unet import TINY, UNet

STEPS, LR, CLIP, EMA = 10, 1e-3, 1.0, 0.995


def main(folder):
    torch.set_num_threads(1)
    data = stio.load(os.path.join(folder, "unet_tiny.safetensors"))
    net = UNet(**TINY).eval()
    net.load_state_dict({k: torch.tensor(data[k]) for k in net.state_dict()})
    net = net.double()
    x, target = (torch.tensor(data[f"golden.{k}"]).double() for k in ("x", "target"))
    t = torch.tensor(data["golden.t"])
    ema = {k: p.detach().clone() for k, p in net.named_parameters()}
    opt = torch.optim.Adam(net.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for k in range(STEPS):
        loss = torch.mean((net(x, t) - target) ** 2)
        opt.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)))
        opt.step()
        decay = min(EMA, (1 + k) / (10 + k))
        for name, p in net.named_parameters():
            ema[name] = decay * ema[name] + (1 - decay) * p.detach()
        losses.append(loss.item())
    out = {"loss": np.float32(losses), "grad_norm": np.float32(norms)}
    out.update({f"param.{k}": p.detach().numpy().astype(np.float32) for k, p in net.named_parameters()})
    out.update({f"ema.{k}": v.numpy().astype(np.float32) for k, v in ema.items()})
    stio.save(os.path.join(folder, "unet_tiny_steps.safetensors"), out, {"format": "pt"})
    print("losses", losses, "norms", norms)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "testdata"))

"""Times PyTorch's training step and sampling step on the CPU; prints one JSON line a mode.

    python3 bench_train.py --threads 2 --batch 16 --channels-last [--net shapes] [--dtype bf16]

The counterpart of "ddpm bench --json", with the same keys. A training step is: draw t and noise,
x_t, forward, mean squared error, backward, clip to norm 1, Adam, EMA. A sampling step is: forward
without gradients, then the ancestral update with clipping. bf16 is autocast with float32 weights.

FLOPs are two for each multiply-add of convolutions, linears and attention products; a training
step counts as three forwards. Peak memory is that of the process: time one mode in each. For
several threads set OMP_PROC_BIND=true, OMP_PLACES=cores and OMP_WAIT_POLICY=passive.

Needs torch 1.13 or newer with OpenBLAS or MKL: on Debian python3-torch and libopenblas0-pthread.
"""
import argparse
import contextlib
import json
import os
import resource
import statistics
import time

NETS = {
    "cifar": {},  # unet.py's own
    "shapes": {
        "sample_size": 16,
        "block_out_channels": [24, 48],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "norm_num_groups": 4,
    },
}


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--mode", choices=["train", "sample", "both"], default="both")
    ap.add_argument("--net", choices=list(NETS), default="cifar")
    ap.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    ap.add_argument("--channels-last", action="store_true")
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--warmup", type=int, default=2)
    return ap.parse_args()


ARGS = parse()
for library in ("OMP", "OPENBLAS", "MKL"):  # read when torch loads
    os.environ[library + "_NUM_THREADS"] = str(ARGS.threads)

import torch  # noqa: E402

from unet import Attention, UNet, forward_flops  # noqa: E402

V2 = int(torch.__version__.split(".")[0]) >= 2


def check_blas():
    """Refuses the reference BLAS, with which PyTorch is several times slower than it has to be."""
    if not os.path.exists("/proc/self/maps"):
        return
    with open("/proc/self/maps") as maps:
        files = {line.split()[-1] for line in maps if "/" in line}
    slow = [f for f in files if os.path.basename(f).startswith("libblas.so") and "openblas" not in os.path.realpath(f)]
    if slow:
        raise SystemExit(f"torch uses the slow reference BLAS, {slow[0]}: install the package libopenblas0-pthread")


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16) if ARGS.dtype == "bf16" else contextlib.nullcontext()


def adam(params):
    """The fastest there is: fused since 2.4; and torch 1.13 is slower with foreach than without."""
    if V2:
        try:
            return torch.optim.Adam(params, lr=2e-4, fused=True)
        except (RuntimeError, TypeError):
            return torch.optim.Adam(params, lr=2e-4, foreach=True)
    return torch.optim.Adam(params, lr=2e-4)


def average(ema, params, decay):
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(ema, params, 1 - decay)
    else:
        torch._foreach_mul_(ema, decay)
        torch._foreach_add_(ema, params, alpha=1 - decay)


def training_step(net, x0, abar):
    params = list(net.parameters())
    ema = [p.detach().clone() for p in params]
    optimizer = adam(params)

    def step():
        optimizer.zero_grad(set_to_none=True)
        t = torch.randint(0, len(abar), (len(x0),))
        eps = torch.randn_like(x0)
        a = abar[t][:, None, None, None]
        with autocast():
            out = net(a.sqrt() * x0 + (1 - a).sqrt() * eps, t)
        torch.nn.functional.mse_loss(out.float(), eps).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            average(ema, params, 0.9999)

    return step


def sampling_step(net, x0, abar):
    xt = torch.randn_like(x0)
    t = len(abar) // 2
    a, before = float(abar[t]), float(abar[t - 1])
    beta = 1 - a / before
    on_x0, on_xt = before**0.5 * beta / (1 - a), (1 - beta) ** 0.5 * (1 - before) / (1 - a)
    std = (beta * (1 - before) / (1 - a)) ** 0.5
    ts = torch.full((len(x0),), t)

    def step():
        with torch.no_grad():
            with autocast():
                eps = net(xt, ts).float()
            pred = ((xt - (1 - a) ** 0.5 * eps) / a**0.5).clamp_(-1, 1)
            xt.copy_(on_x0 * pred + on_xt * xt + std * torch.randn_like(xt))

    return step


def bench(mode):
    torch.manual_seed(0)
    torch.set_num_threads(ARGS.threads)
    Attention.impl = "sdpa" if V2 else "math"
    net = UNet(**NETS[ARGS.net]).train(mode == "train")
    forward = forward_flops(net)["total"]
    size = net.cfg["sample_size"]
    x0 = torch.randn(ARGS.batch, 3, size, size).clamp(-1, 1)
    if ARGS.channels_last:
        net = net.to(memory_format=torch.channels_last)
        x0 = x0.to(memory_format=torch.channels_last)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
    step = (training_step if mode == "train" else sampling_step)(net, x0, abar)

    for _ in range(ARGS.warmup):
        step()
    wall, cpu = [], []
    for _ in range(ARGS.steps):
        w, c = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    median, best = statistics.median(wall), min(wall)
    work = forward * ARGS.batch * (3 if mode == "train" else 1)
    print(json.dumps({
        "mode": mode, "config": ARGS.net, "torch": torch.__version__, "device": "cpu", "dtype": ARGS.dtype,
        "channels_last": ARGS.channels_last, "threads": ARGS.threads, "batch": ARGS.batch, "steps": ARGS.steps,
        "step_median_s": median, "step_min_s": best, "cpu_step_median_s": statistics.median(cpu),
        "images_per_s": ARGS.batch / median, "images_per_s_best": ARGS.batch / best,
        "forward_gflop_per_image": forward / 1e9, "step_gflop": work / 1e9,
        "tflop_per_s": work / median / 1e12, "tflop_per_s_best": work / best / 1e12,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }), flush=True)


if __name__ == "__main__":
    check_blas()
    for m in ["train", "sample"] if ARGS.mode == "both" else [ARGS.mode]:
        bench(m)

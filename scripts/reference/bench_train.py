"""Times PyTorch's training step and sampling step, on the CPU or a GPU; prints one JSON line a mode.

    python3 bench_train.py --threads 2 --batch 16 --channels-last [--net shapes] [--dtype bf16]
    python3 bench_train.py --device cuda --batch 128 --channels-last --dtype bf16 --compile --cudagraphs

The counterpart of "ddpm bench --json", with the same keys. A training step is: draw t and noise,
x_t, forward, mean squared error, backward, clip to norm 1, Adam, EMA. A sampling step is: forward
without gradients, then the ancestral update with clipping. bf16 is autocast with float32 weights.

On a GPU the fastest setting has to be looked for: --compile (with --compile-mode), --cudagraphs,
--norm-bf16, --attention math, and for sampling --pure-bf16. Steps are timed by the GPU's clock.
Memory is what the allocator handed out at most.

The first step ends first_step_s after the program began: importing torch, making the network,
compiling and looking for fast kernels, and the step itself; of two modes each without the other.

FLOPs are two for each multiply-add of convolutions, linears and attention products; a training
step counts as three forwards. On the CPU peak memory is that of the process: time one mode in
each. For several threads set OMP_PROC_BIND=true, OMP_PLACES=cores and OMP_WAIT_POLICY=passive.

Needs torch 1.13 or newer: on Debian python3-torch and libopenblas0-pthread, or MKL.
"""
import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402

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
    ap.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    ap.add_argument("--dtype", choices=["fp32", "tf32", "bf16"], default="fp32")
    ap.add_argument("--channels-last", action="store_true")
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--warmup", type=int, default=2)
    ap.add_argument("--compile", action="store_true", help="torch.compile, of torch 2 or newer")
    ap.add_argument("--compile-mode", help="of torch.compile (max-autotune-no-cudagraphs on a GPU)")
    ap.add_argument("--cudagraphs", action="store_true", help="the whole step is one CUDA graph")
    ap.add_argument("--attention", choices=["math", "sdpa"], help="products and softmax, or torch 2's own (if it has one)")
    ap.add_argument("--norm-bf16", action="store_true", help="normalisation keeps bfloat16 tensors under autocast")
    ap.add_argument("--pure-bf16", action="store_true", help="sampling with bfloat16 weights, in place of autocast")
    args = ap.parse_args()
    if args.dtype == "tf32" and args.device == "cpu":
        ap.error("--dtype tf32 needs --device cuda")
    if args.cudagraphs and args.device == "cpu":
        ap.error("--cudagraphs needs --device cuda")
    if args.pure_bf16 and (args.mode != "sample" or args.dtype != "bf16"):
        ap.error("--pure-bf16 needs --mode sample --dtype bf16")
    return args


ARGS = parse()
if ARGS.device == "cpu":
    for library in ("OMP", "OPENBLAS", "MKL"):  # read when torch loads
        os.environ[library + "_NUM_THREADS"] = str(ARGS.threads)

import torch  # noqa: E402

from unet import Attention, GroupNorm, UNet, forward_flops  # noqa: E402

V2 = int(torch.__version__.split(".")[0]) >= 2
ON_GPU = ARGS.device == "cuda"
LOADED = time.perf_counter()


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
    if ARGS.dtype == "bf16" and not ARGS.pure_bf16:
        return torch.autocast(ARGS.device, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def adam(params):
    """The fastest there is: fused since 2.0 on GPUs and 2.4 on CPUs; and torch 1.13 is slower with foreach than without.

    A graph needs capturable: then the count of steps is on the GPU.
    """
    if V2:
        try:
            return torch.optim.Adam(params, lr=2e-4, fused=True, capturable=ON_GPU)
        except (RuntimeError, TypeError):
            return torch.optim.Adam(params, lr=2e-4, foreach=True, capturable=ON_GPU)
    return torch.optim.Adam(params, lr=2e-4, capturable=ON_GPU)


def average(ema, params, decay):
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(ema, params, 1 - decay)
    else:
        torch._foreach_mul_(ema, decay)
        torch._foreach_add_(ema, params, alpha=1 - decay)


def training_step(net, forward, x0, abar):
    params = list(net.parameters())
    ema = [p.detach().clone() for p in params]
    optimizer = adam(params)

    def step():
        optimizer.zero_grad(set_to_none=True)
        t = torch.randint(0, len(abar), (len(x0),), device=x0.device)
        eps = torch.randn_like(x0)
        a = abar[t][:, None, None, None]
        with autocast():
            out = forward(a.sqrt() * x0 + (1 - a).sqrt() * eps, t)
        torch.nn.functional.mse_loss(out.float(), eps).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            average(ema, params, 0.9999)

    return step


def sampling_step(net, forward, x0, abar):
    xt = torch.randn_like(x0)
    t = len(abar) // 2
    a, before = float(abar[t]), float(abar[t - 1])
    beta = 1 - a / before
    on_x0, on_xt = before**0.5 * beta / (1 - a), (1 - beta) ** 0.5 * (1 - before) / (1 - a)
    std = (beta * (1 - before) / (1 - a)) ** 0.5
    ts = torch.full((len(x0),), t, device=x0.device)

    def step():
        with torch.no_grad():
            with autocast():
                eps = forward(xt.bfloat16() if ARGS.pure_bf16 else xt, ts).float()
            pred = ((xt - (1 - a) ** 0.5 * eps) / a**0.5).clamp_(-1, 1)
            xt.copy_(on_x0 * pred + on_xt * xt + std * torch.randn_like(xt))

    return step


def warm_up(step):
    """Makes the steps that are not timed, at least one; returns when the first was over."""
    step()
    if ON_GPU:
        torch.cuda.synchronize()
    first = time.perf_counter()
    for _ in range(ARGS.warmup - 1):
        step()
    return first


def time_on_cpu(step):
    """Wall and processor seconds of each step, and when the first was over."""
    first = warm_up(step)
    wall, cpu = [], []
    for _ in range(ARGS.steps):
        w, c = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    return wall, cpu, first


def time_on_gpu(step):
    """Seconds of each step between events in the stream, the mean by the host's clock, and when the first was over."""
    side = torch.cuda.Stream()  # before a capture, steps must have run, and not in the default stream
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        first = warm_up(step)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.reset_peak_memory_stats()  # what looking for the fastest kernels took is no part of a step
    if ARGS.cudagraphs:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        step = graph.replay
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(ARGS.steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    mean = (time.perf_counter() - began) / ARGS.steps
    return [a.elapsed_time(b) / 1e3 for a, b in zip(marks, marks[1:])], mean, first


def bench(mode):
    begun = time.perf_counter()
    torch.manual_seed(0)
    if ON_GPU:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = ARGS.dtype != "fp32"
    else:
        torch.set_num_threads(ARGS.threads)
    Attention.impl = ARGS.attention or ("sdpa" if V2 else "math")
    GroupNorm.keep_dtype = ARGS.norm_bf16
    net = UNet(**NETS[ARGS.net]).train(mode == "train")
    forward_work = forward_flops(net)["total"]
    net = net.to(ARGS.device, torch.bfloat16 if ARGS.pure_bf16 else torch.float32)
    size = net.cfg["sample_size"]
    x0 = torch.randn(ARGS.batch, 3, size, size).clamp(-1, 1).to(ARGS.device)
    if ARGS.channels_last:
        net = net.to(memory_format=torch.channels_last)
        x0 = x0.to(memory_format=torch.channels_last)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float().to(ARGS.device)
    forward, compiled = net, None
    if ARGS.compile:
        compiled = ARGS.compile_mode or ("max-autotune-no-cudagraphs" if ON_GPU else "default")
        forward = torch.compile(net, mode=compiled)
    step = (training_step if mode == "train" else sampling_step)(net, forward, x0, abar)

    work = forward_work * ARGS.batch * (3 if mode == "train" else 1)
    report = {
        "mode": mode, "config": ARGS.net, "torch": torch.__version__, "device": "cpu", "dtype": ARGS.dtype,
        "channels_last": ARGS.channels_last, "attention": Attention.impl, "compile": compiled, "cudagraphs": ARGS.cudagraphs,
        "norm_bf16": ARGS.norm_bf16, "pure_bf16": ARGS.pure_bf16, "threads": ARGS.threads, "batch": ARGS.batch,
        "steps": ARGS.steps,
    }
    if ON_GPU:
        wall, mean, first = time_on_gpu(step)
        report.update(
            device=torch.cuda.get_device_name(), threads=None, wall_step_mean_s=mean,
            peak_memory_mib=torch.cuda.max_memory_allocated() / 2**20,
            peak_reserved_mib=torch.cuda.max_memory_reserved() / 2**20)
    else:
        wall, cpu, first = time_on_cpu(step)
        report.update(
            cpu_step_median_s=statistics.median(cpu),
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    median, best = statistics.median(wall), min(wall)
    report.update(
        first_step_s=LOADED - BEGAN + first - begun,
        step_median_s=median, step_min_s=best, images_per_s=ARGS.batch / median, images_per_s_best=ARGS.batch / best,
        forward_gflop_per_image=forward_work / 1e9, step_gflop=work / 1e9,
        tflop_per_s=work / median / 1e12, tflop_per_s_best=work / best / 1e12)
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    if not ON_GPU:
        check_blas()
    for m in ["train", "sample"] if ARGS.mode == "both" else [ARGS.mode]:
        bench(m)

#!/bin/sh
# Times ddpm's training and sampling steps beside PyTorch's, on the CPU, and prints
# the ratios. Both take turns, so that what else the machine does hits both; the
# best step of each counts. Every measurement is a process of its own.
#
#   scripts/bench-vs-torch.sh
#   scripts/bench-vs-torch.sh --net shapes --rounds 5
#   PYTHON=/opt/torch/bin/python3 scripts/bench-vs-torch.sh --dtypes fp32 --modes train
#
# Needs Go, and python3 (or $PYTHON) with torch: on Debian python3-torch and
# libopenblas0-pthread.
set -eu

usage() {
	cat <<'END'
usage: bench-vs-torch.sh [option value]...
  --net      cifar or shapes                        (cifar)
  --batch    images a step                          (16)
  --threads  of both                                (2)
  --rounds   of taking turns                        (3)
  --steps    timed in a round         (5 for cifar, 100 for shapes)
  --modes    "train sample", or one of them         (both)
  --dtypes   "fp32 bf16", or one of them            (both)
  --layouts  of PyTorch: "nhwc nchw", or one of them; the best counts
             (nhwc for cifar, where it is the faster; both for shapes)
  --json     a file to keep all measurements in     (none)
END
}

wrong() {
	echo "bench-vs-torch.sh: $1; see --help" >&2
	exit 1
}

net=cifar batch=16 threads=2 rounds=3 steps= modes="train sample" dtypes="fp32 bf16" layouts= json=
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage && exit ;;
	--net | --batch | --threads | --rounds | --steps | --modes | --dtypes | --layouts | --json)
		[ $# -gt 1 ] || wrong "$1: want a value"
		eval "${1#--}=\$2" && shift 2 ;;
	*) wrong "$1: no such option" ;;
	esac
done
case $net in
cifar) steps=${steps:-5} layouts=${layouts:-nhwc} ;;
shapes) steps=${steps:-100} layouts=${layouts:-nhwc nchw} ;;
*) wrong "--net $net: want cifar or shapes" ;;
esac
count() { # option value
	case $2 in
	'' | *[!0-9]* | 0*) wrong "$1 $2: want a whole number, at least 1" ;;
	esac
}
count --batch "$batch"
count --threads "$threads"
count --rounds "$rounds"
count --steps "$steps"
words() { # option "values" choices...
	option=$1 values=$2
	shift 2
	[ -n "$values" ] || wrong "$option: want one of $*"
	for value in $values; do
		case " $* " in
		*" $value "*) ;;
		*) wrong "$option $value: want one of $*" ;;
		esac
	done
}
words --modes "$modes" train sample
words --dtypes "$dtypes" fp32 bf16
words --layouts "$layouts" nhwc nchw

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
(cd "$root" && CGO_ENABLED=0 go build -trimpath -o "$work/ddpm" ./cmd/ddpm)
"$python" -c 'import torch' 2>"$work/error" || {
	echo "$python cannot import torch: install python3-torch, or name another python in PYTHON" >&2
	exit 1
}

# PyTorch at its best: threads bound to cores and asleep when idle, the widest
# vectors in its own loops, and an allocator that keeps the memory it has.
capability=avx2
grep -qs avx512f /proc/cpuinfo && capability=avx512
torch() { # mode dtype layout
	channels_last=--channels-last
	[ "$3" = nhwc ] || channels_last=
	OMP_NUM_THREADS=$threads OMP_PROC_BIND=true OMP_PLACES=cores OMP_WAIT_POLICY=passive \
		ATEN_CPU_CAPABILITY=$capability MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 \
		"$python" "$root/scripts/reference/bench_train.py" --net "$net" --mode "$1" --dtype "$2" \
		--batch "$batch" --threads "$threads" --steps "$steps" $channels_last
}

# The reference network has no dropout.
ddpm() { # mode dtype
	precision=
	[ "$2" = fp32 ] || precision="--precision $2"
	"$work/ddpm" bench --json --device cpu --config "$root/configs/$net.yaml" --set model.dropout=0 --mode "$1" $precision \
		--batch "$batch" --threads "$threads" --steps "$steps"
}

: >"$work/torch.jsonl" >"$work/ddpm.jsonl"
for round in $(seq "$rounds"); do
	for dtype in $dtypes; do
		for mode in $modes; do
			echo "round $round of $rounds: $mode $dtype" >&2
			for layout in $layouts; do
				torch "$mode" "$dtype" "$layout" >>"$work/torch.jsonl"
			done
			[ -e "$work/missing.$dtype" ] && continue
			if ! ddpm "$mode" "$dtype" >>"$work/ddpm.jsonl" 2>"$work/error"; then
				cat "$work/error" >&2
				[ "$dtype" != fp32 ] || exit 1
				touch "$work/missing.$dtype" # not every processor has it
			fi
		done
	done
done
[ -z "$json" ] || cat "$work/torch.jsonl" "$work/ddpm.jsonl" >"$json"

echo "machine: $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1), $threads threads"
echo "ddpm: $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown revision)"
"$python" - "$work/torch.jsonl" "$work/ddpm.jsonl" "$net" "$batch" <<'END'
import json
import sys

torch, ddpm = ([json.loads(line) for line in open(path)] for path in sys.argv[1:3])
print(f"net: {sys.argv[3]}, batch {sys.argv[4]}, torch {torch[0]['torch']}; images/s of the best step, peak MiB of the process")
line = "{:<12}  {:>9} {:>9} {:>6}   {:>9} {:>9} {:>6}".format
print(line("", "PyTorch", "ddpm", "ratio", "PyTorch", "ddpm", "ratio"))
seen = []
for r in torch:
    row = r["mode"], r["dtype"]
    if row in seen:
        continue
    seen.append(row)
    theirs, ours = ([r for r in all if (r["mode"], r["dtype"]) == row] for all in (torch, ddpm))
    best = max(theirs, key=lambda r: r["images_per_s_best"])
    cells = [f"{best['images_per_s_best']:.2f}", "-", "-", f"{best['peak_memory_mib']:.0f}", "-", "-"]
    if ours:
        own = max(ours, key=lambda r: r["images_per_s_best"])
        cells[1:3] = f"{own['images_per_s_best']:.2f}", f"{own['images_per_s_best'] / best['images_per_s_best']:.2f}"
        cells[4:] = f"{own['peak_memory_mib']:.0f}", f"{own['peak_memory_mib'] / best['peak_memory_mib']:.2f}"
    print(line(" ".join(row), *cells))
END

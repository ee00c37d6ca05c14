#!/bin/sh
# Everything a GPU must show, in one go of less than ten minutes: that it is there,
# that every kernel and the training of networks agree with the CPU and PyTorch, that
# runs are equal bit for bit, and how fast a training and a sampling step are once tuned,
# beside PyTorch if the machine has it. Ends with one table; exit status 1 if a required
# part did not pass.
#
#   scripts/gpu-check.sh                         # in an unpacked bundle: make gpu-bundle
#   scripts/gpu-check.sh --bin build/gpu         # in the checkout that made it
#   scripts/gpu-check.sh --only 'train-* torch-train-*' --seconds 1800
#   DDPM_LIBCUDA=build/standin/libcuda.so.1 scripts/gpu-check.sh --bin build/gpu --quick
#
# It needs the binaries, sh, coreutils and awk: neither Go nor a network. nvidia-smi,
# and a python3 (or $PYTHON) whose torch sees the GPU, are used if they are there.
#
# Each part is a process with a limit of its own; none can stop the next. What parts
# print goes to the output folder line by line, so that a run cut short leaves
# everything up to then:
#
#   log.txt        all that parts printed
#   results.tsv    a line for each part that ended
#   figures.jsonl  what the benchmarks printed, ddpm's and PyTorch's
#   table.txt      the table
set -eu

usage() {
	cat <<'END'
usage: gpu-check.sh [option]...
  --out DIR      for results                         (build/gpu-check/TIME)
  --bin DIR      with ddpm and the test binaries                    (bin)
  --seconds N    for everything                                     (570)
  --only NAMES   patterns of the parts to run                       (all)
  --caches DIR   keeps what the driver and torch.compile compiled, and what was
                 tuned, for the next time         (removed at the end)
  --quick        tiny sizes: tests of this script, whose figures mean nothing
  --table DIR    prints the table of an earlier run
  --list         prints the parts
END
}

wrong() {
	echo "gpu-check.sh: $1; see --help" >&2
	exit 2
}

absolute() { # a path that need not exist
	case $1 in
	/*) echo "$1" ;;
	*) echo "$PWD/$1" ;;
	esac
}

now() { date +%s; }

# What a part says of itself in the table: the last such line counts.
figures() { echo "figures: $*"; }

readonly skipped=77 # the exit status of a part that cannot run here

# mine is what the running part has printed.
mine() { tail -c "+$((offset + 1))" "$out/log.txt"; }

# json prints a value of the JSON object, a line, on the standard input.
json() { sed -n 's/.*"'"$1"'": *"\{0,1\}\([^,"}]*\).*/\1/p'; }

########################################################################
# Parts. Each runs in a process of its own. What the main one exports: root, bin, out;
# work, a folder that is removed at the end; quick; and of the part its limit in
# seconds and its offset in the log.

ddpm() { "$bin/ddpm" "$@"; }

part_system() {
	date -u
	[ ! -e "$root/VERSION" ] || echo "bundle: $(cat "$root/VERSION")"
	ddpm version || true
	uname -srm
	getconf GNU_LIBC_VERSION || true
	echo "processor: $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads"
	if has_torch; then
		echo "torch: $(cat "$work/torch")"
	else
		echo "torch: none: $(tail -n 1 "$work/torch-error")"
	fi
	if ! command -v nvidia-smi >/dev/null; then
		figures "no nvidia-smi; $(uname -m), $(nproc) threads"
		return
	fi
	nvidia-smi || true
	nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,TEMPERATURE || true
	figures "$(nvidia-smi -i 0 --query-gpu=name,driver_version,clocks.max.sm,power.limit,memory.free,temperature.gpu \
		--format=csv,noheader | sed 's/, / | /g')"
}

part_devices() {
	ddpm devices --json
	text=$(ddpm devices)
	echo "$text"
	first=$(echo "$text" | sed -n '/^cuda:0 /{N;s/^cuda:0 *//;s/\n */, /;p;}')
	[ -n "$first" ] || { figures "$(echo "$text" | grep '^cuda')"; return 1; }
	figures "$first"
	case $first in *"kernels none"*) return 1 ;; esac
}

# The driver compiles the kernels when a device is opened the first time, and keeps
# them in its cache.
part_start() {
	cache=empty
	[ -z "$(ls "$CUDA_CACHE_PATH")" ] || cache=filled
	text=
	for time in first second; do
		began=$(date +%s%N)
		ddpm bench --device cuda --config "$root/configs/shapes.yaml" --set model.channels=8 \
			--mode sample --batch 1 --warmup 0 --steps 1
		text="$text, the $time time $((($(date +%s%N) - began) / 1000000)) ms"
	done
	figures "open, load the kernels and draw$text; the driver's cache was $cache"
}

# Every kernel of the GPU's own set beside the one that runs on all GPUs.
part_check() {
	status=0
	ddpm devices --check || status=$?
	figures "$(mine | tail -n 1)"
	return $status
}

# Which of several ways to the same bits is the fastest, by product.
part_tune() { # batch
	budget=$((limit - 15))
	[ $quick = no ] || budget=1
	on_network tune --batch "$1" --seconds $budget || return
	figures "$(mine | tail -n 1)"
}

# go_test runs a test binary and wants the named tests to have passed.
go_test() { # binary folder -test.run -test.skip name...
	binary=$bin/$1 folder=$root/$2 run=$3 skip=$4
	shift 4
	if [ ! -x "$binary" ]; then
		figures "there is no $binary: make gpu-bundle builds it"
		return 1
	fi
	cd "$folder"
	status=0
	"$binary" -test.v -test.count=1 -test.timeout "$((limit - 2))s" -test.run "$run" -test.skip "$skip" || status=$?
	mine >"$work/test.txt"
	count() { grep -c "^ *--- $1: " "$work/test.txt" || true; }
	text="$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
	missing=
	for name; do
		grep -q "^ *--- PASS: $name " "$work/test.txt" || missing="$missing $name"
	done
	if [ $status -ne 0 ] || [ -n "$missing" ] || [ "$(count PASS)" = 0 ]; then
		# The longest name is that of the smallest part that failed.
		worst=$(sed -n 's/^ *--- FAIL: \([^ ]*\).*/\1/p' "$work/test.txt" | awk 'length($0) > length(l) { l = $0 } END { print l }')
		[ -z "$missing" ] || text="$text; did not pass:$missing"
		figures "$text${worst:+; such as $worst}"
		return 1
	fi
	figures "$text"
}

part_conformance() { # precision
	go_test cuda.test internal/graph/cuda "^TestBackend\$/^$1\$" '^$' "TestBackend/$1"
}

part_kernels() { go_test cuda.test internal/graph/cuda . '^TestBackend$'; }

# The program as a user types it.
part_commands() { go_test ddpm.test cmd/ddpm '^TestGPUScripts$' '^$' TestGPUScripts; }

part_pytorch() {
	set -- TestTinyUNetMatchesPyTorchOnAGPU TestTenStepsMatchPyTorchOnAGPU
	go_test model.test internal/model "^($1|$2)\$" '^$' "$@"
}

part_training() {
	set -- TestGPUAgreesWithCPU TestRunsOnAGPUAreEqual TestResumedRunEqualsUnbrokenOneOnAGPU TestCheckpointsMoveBetweenCPUAndGPU
	go_test train.test internal/train "^($1|$2|$3|$4)\$" '^$' "$@" || return
	bounds=$(mine | sed -n 's/.*: \(fp32\|tf32\|bf16\): losses of .* within \([^ ]*\) of.*/\1 \2/p' | paste -sd, - | sed 's/,/, /g')
	figures "$(mine | sed -n 's/^figures: //p' | tail -n 1); losses differ from the CPU's by $bounds"
}

# on_network runs a command of ddpm on the network of benchmarks and runs, that of
# the preset cifar.
on_network() { # command option...
	command=$1
	shift
	if [ $quick = yes ]; then
		ddpm "$command" --device cuda --config "$root/configs/shapes.yaml" \
			--set model.channels=8 --set data.width=8 --set data.height=8 "$@"
	else
		ddpm "$command" --device cuda --config "$root/configs/cifar.yaml" "$@"
	fi
}

same() { # file file: fails if they differ, and says where
	if ! cmp "$1" "$2"; then
		figures "$1 and $2 differ"
		return 1
	fi
}

# Three runs of the same steps, one of them interrupted, end in the same bytes, and
# so do samples.
part_runs() { # precision
	steps=12 batch=128
	[ $quick = no ] || steps=2 batch=2
	runs=$work/runs
	rm -rf "$runs"
	mkdir "$runs"
	cd "$runs"
	precision=$1 last=checkpoints/step_$(printf %07d $steps).safetensors
	train() { # folder steps
		on_network train --precision "$precision" --out "$1" --steps "$2" --set data.name=shapes --set train.batch=$batch \
			--set train.warmup=2 --set train.log_every=1 --set train.checkpoint_every=0 \
			--set train.samples=1 --set sample.sampler=ddim --set sample.steps=2
	}
	draw() { # folder
		ddpm sample --device cuda --precision "$precision" --run "$1" -n 8 --batch 8 --sampler ddpm --steps 4 --out "$1.npy"
	}
	train a $steps && train b $steps && same a/$last b/$last || return
	draw a && draw b && same a.npy b.npy || return
	rm -rf b
	train c $((steps / 2)) && ddpm train --resume --out c --steps $steps --device cuda && same a/$last c/$last || return
	figures "$steps steps of $batch images twice, once stopped and resumed, and samples: equal bytes," \
		"$(wc -c <a/$last) of a checkpoint; last loss $(tail -n 1 a/metrics.jsonl | json loss)"
	rm -rf "$runs"
}

# clocks samples the GPU beside a benchmark.
clocks_start() {
	sampler=
	command -v nvidia-smi >/dev/null || return 0
	nvidia-smi -i 0 --query-gpu=clocks.sm,power.draw,temperature.gpu --format=csv,noheader,nounits -lms 100 >"$work/clocks.csv" &
	sampler=$!
}

# Of the samples under load: of at least 80 % of the most power.
clocks_stop() {
	[ -n "$sampler" ] || return 0
	kill "$sampler" 2>/dev/null || true
	wait "$sampler" 2>/dev/null || true
	awk -F', *' '
		$2 + 0 > most { most = $2 + 0 }
		{ clock[NR] = $1 + 0; power[NR] = $2 + 0; if ($3 + 0 > hot) hot = $3 + 0 }
		END {
			for (i = 1; i <= NR; i++) if (power[i] >= 0.8 * most) {
				if (!low || clock[i] < low) low = clock[i]
				if (clock[i] > high) high = clock[i]
			}
			if (NR) printf "clocks under load: %d to %d MHz, %.0f W at most, %d C\n", low, high, most, hot
		}' "$work/clocks.csv"
}

part_bench() { # mode precision batch [most demanding set of kernels]
	if [ -n "${4:-}" ]; then
		export DDPM_KERNELS=$4
	fi
	steps=0 warmup=10
	[ $quick = no ] || steps=2 warmup=1
	clocks_start
	status=0
	# PyTorch's network has no dropout.
	line=$(on_network bench --json --set model.dropout=0 --mode "$1" --precision "$2" --batch "$3" \
		--steps $steps --warmup $warmup) || status=$?
	clocks_stop
	echo "$line"
	[ $status -eq 0 ] || return $status
	case $line in
	*'"device":"cuda:'*) ;;
	*) figures "the benchmark did not run on a GPU" && return 1 ;;
	esac
	# Those of a lesser set are for comparison only.
	[ -n "${4:-}" ] || echo "$line" >>"$out/figures.jsonl"
	figures "$(echo "$line" | step_text)"
}

# untuned runs a part without what was tuned in an earlier run.
part_untuned() { # part argument...
	part=part_$1
	shift
	DDPM_CACHE=$(mktemp -d "$work/untuned.XXXXXX")
	export DDPM_CACHE
	"$part" "$@"
}

# step_text is a line of a benchmark in words.
step_text() {
	read -r line
	echo "$(echo "$line" | json step_median_s) $(echo "$line" | json step_min_s) $(echo "$line" | json images_per_s) $(echo "$line" | json tflop_per_s)" |
		awk '{ printf "%.4g ms a step (%.4g at best), %.0f images/s, %.4g TFLOP/s\n", 1000 * $1, 1000 * $2, $3, $4 }'
}

# Where the time goes: kernels one by one, so that they add up to more than a step.
part_ops() { # mode precision batch
	steps=0
	[ $quick = no ] || steps=1
	on_network bench --ops --set model.dropout=0 --mode "$1" --precision "$2" --batch "$3" --steps $steps || return
	# Groups of operations begin in this column, what they are made of further right.
	figures "$(mine | awk '
		$2 == "%" && substr($0, 85, 1) != " " && n < 4 { most = most sprintf("%s%.0f %% %s", n++ ? ", " : "", $1, substr($0, 85)) }
		$1 == "floor" || $1 == "MFU" { rest = rest sprintf("; %s %s %s", $1, $2, $3) }
		END { print "most: " most rest }')"
}

# The plan of a batch that fits, and of one that has to be split.
part_plan() {
	batch=128 large=8192
	[ $quick = no ] || batch=2 large=64
	for images in $batch $large; do
		on_network plan --set train.batch=$images || return
	done
	figures "$(mine | awk '
		/^step / { batch = $(NF - 1) }
		/^train.accumulate/ { split_into = " (in " $2 + 0 " parts)" }
		/^(memory|too large) / { printf "%s%s images%s: %s", n++ ? ", " : "", batch, split_into, $0 ~ /^memory/ ? $2 " " $3 : "too large" }
		END { print "" }')"
}

# The default run on a GPU.
part_default_run() {
	rm -rf "$work/default"
	steps=7000
	[ $quick = no ] || steps=3
	began=$(now)
	ddpm train --device cuda --config "$root/configs/shapes.yaml" --out "$work/default" --steps $steps \
		--set train.plot_every=0 --set train.samples=1 || return
	took=$(($(now) - began))
	loss=$(tail -n 100 "$work/default/metrics.jsonl" | json loss | awk '{ s += $1 } END { if (NR) printf "%.4f", s / NR }')
	rm -rf "$work/default"
	figures "$steps steps in $took s, mean loss of the last thousand $loss (0.068 on a CPU)"
	[ $quick = yes ] || awk "BEGIN { exit !($loss > 0 && $loss < 0.075) }"
}

python=${PYTHON:-python3}

# has_torch leaves torch's version in a file, or why it cannot be used in another.
has_torch() {
	[ -s "$work/torch" ] || [ -s "$work/torch-error" ] || "$python" - $quick >"$work/torch" 2>"$work/torch-error" <<'END' || true
import sys
try:
    import torch
except ImportError as e:
    raise SystemExit(f"{sys.executable}: {e}")
if sys.argv[1] == "no" and not torch.cuda.is_available():
    raise SystemExit(f"torch {torch.__version__} sees no GPU")
print(f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
END
	[ -s "$work/torch" ]
}

part_torch() { # mode dtype batch option...
	if ! has_torch; then
		figures "$(tail -n 1 "$work/torch-error")"
		return $skipped
	fi
	mode=$1 dtype=$2 batch=$3
	shift 3
	if [ $quick = yes ]; then
		[ "$dtype" != tf32 ] || dtype=fp32 # which processors do not have
		set -- --device cpu --net shapes --threads 1 --steps 1 --warmup 1
	else
		set -- --device cuda --steps 100 --warmup 10 "$@"
	fi
	clocks_start
	status=0
	line=$("$python" -B -u "$root/scripts/reference/bench_train.py" --mode "$mode" --dtype "$dtype" --batch "$batch" --channels-last "$@") || status=$?
	clocks_stop
	echo "$line"
	if [ $status -ne 0 ]; then
		figures "$(mine | grep -v '^clocks' | grep . | tail -n 1 | cut -c 1-160)"
		return $status
	fi
	echo "$line" | tail -n 1 >>"$out/figures.jsonl"
	figures "$(echo "$line" | tail -n 1 | step_text)"
}

########################################################################
# The run.

# run runs a part of a name, for at most so many seconds. What is not required may
# fail.
run() { # name required|optional limit command argument...
	name=$1 need=$2 limit=$3
	shift 3
	selected "$name" || return 0
	if [ $list = yes ]; then
		printf '%-32s %-9s %4s s at most\n' "$name" "$need" "$limit"
		return
	fi
	left=$((deadline - $(now)))
	[ $quick = no ] || limit=$left # a processor takes longer even over little
	[ $need = required ] || left=$((left - reserve))
	[ "$limit" -le $left ] || limit=$left
	if [ "$limit" -lt $least ]; then
		record "$name" "$need" skipped 0 "${why:-no time was left}"
		return
	fi
	printf '\n== %s (%s, %s s at most)\n' "$name" "$*" "$limit" >>"$out/log.txt"
	offset=$(wc -c <"$out/log.txt")
	began=$(now)
	timeout -k 10 "$limit" sh "$self" --part "$@" >>"$out/log.txt" 2>&1 &
	child=$!
	status=0
	wait $child || status=$?
	# timeout made a process group; what is left of it would disturb the next part.
	kill -KILL -$child 2>/dev/null || true
	child=
	text=$(mine | sed -n 's/^figures: //p' | tail -n 1)
	case $status in
	0) result=pass ;;
	"$skipped") result=skipped ;;
	124 | 137) result=FAIL text="stopped after $limit s: ${text:-$(last_words)}" ;;
	129 | 130 | 143) result=FAIL text=interrupted ;;
	*) result=FAIL text=${text:-exit status $status: $(last_words)} ;;
	esac
	record "$name" "$need" $result $(($(now) - began)) "$text"
}

# last_words of a part: ddpm's error, or the last line.
last_words() {
	mine | awk '/^ddpm: / && !said { said = $0 } NF { line = $0 } END { print substr(said ? said : line, 1, 160) }'
}

selected() { # name
	[ -n "$only" ] || return 0
	set -f
	for pattern in $only; do
		case $1 in
		$pattern) set +f && return 0 ;;
		esac
	done
	set +f
	return 1
}

record() { # name need result seconds text
	printf '%s\t%s\t%s\t%s\t%s\n' "$@" | tee -a "$out/results.tsv" | awk -F '\t' '{ printf "%-7s %4d s  %s: %s\n", $3, $4, $1, $5 }'
}

# print_table joins results with the ratios of the best figures.
print_table() { # folder
	[ -e "$1/figures.jsonl" ] || : >"$1/figures.jsonl"
	awk -F '\t' -v figures="$1/figures.jsonl" '
		function value(line, key) {
			if (!match(line, "\"" key "\": *\"?[^,\"}]*")) return ""
			line = substr(line, RSTART, RLENGTH)
			sub(/^"[^"]*": *"?/, "", line)
			return line
		}
		BEGIN {
			while ((getline line < figures) > 0) {
				key = value(line, "mode") "-" value(line, "dtype") "-" value(line, "batch")
				speed = value(line, "images_per_s") + 0
				memory = value(line, "peak_memory_mib") + 0
				first = value(line, "first_step_s") + 0
				if (line ~ /"torch":/) {
					# Memory and start are those of the fastest mode.
					if (speed > theirs[key]) {
						theirs[key] = speed
						their_memory[key] = memory
						their_first[key] = first
					}
				} else {
					if (speed > ours[key]) ours[key] = speed
					if (memory) our_memory[key] = memory
					if (first && (!our_first[key] || first < our_first[key])) our_first[key] = first
				}
			}
			printf "%-32s %-8s %5s  %s\n", "part", "result", "s", "figures"
		}
		{
			text = $5
			if (theirs[$1] && ours[$1]) {
				text = text sprintf("; best: %.2f x PyTorch", ours[$1] / theirs[$1])
				if (their_memory[$1] && our_memory[$1]) text = text sprintf(", %.2f x its memory", our_memory[$1] / their_memory[$1])
				if (their_first[$1] && our_first[$1]) text = text sprintf(", %.2f x its time to the first step", our_first[$1] / their_first[$1])
			}
			printf "%-32s %-8s %5d  %s\n", $1, $3, $4, text
			n[$3]++
			if ($2 == "required" && $3 != "pass") missing = missing " " $1
		}
		END {
			printf "%d passed, %d failed, %d skipped\n", n["pass"], n["FAIL"], n["skipped"]
			if (missing) print "REQUIRED AND NOT PASSED:" missing
			exit missing != ""
		}' "$1/results.tsv"
}

# interrupt ends the running part and lets no other begin, so that they are listed.
interrupt() { # exit status
	interrupted=$1 deadline=0 why=interrupted
	[ -z "$child" ] || kill "$child" 2>/dev/null || true
}

parts() {
	run system optional 30 system
	run devices required 60 devices
	run start required 150 start
	run check required 60 check
	run pytorch required 90 pytorch
	run conformance-bf16 required 120 conformance bf16
	run conformance-fp32 required 120 conformance fp32
	run conformance-tf32 required 120 conformance tf32
	run training required 120 training
	run runs-bf16 required 90 runs bf16
	run train-bf16-$train-untuned optional 30 untuned bench train bf16 "$train"
	run tune-$train optional 60 tune "$train"
	run train-bf16-$train required 60 bench train bf16 "$train"
	run train-bf16-$train-sm_80 optional 30 bench train bf16 "$train" sm_80
	run train-bf16-$more required 60 bench train bf16 "$more"
	run sample-bf16-$small required 60 bench sample bf16 "$small"
	run sample-bf16-$large required 60 bench sample bf16 "$large"
	run train-tf32-$train required 60 bench train tf32 "$train"
	run train-fp32-$train required 60 bench train fp32 "$train"
	run ops-train-bf16 required 60 ops train bf16 "$train"
	run ops-sample-bf16 required 60 ops sample bf16 "$large"
	run kernels required 90 kernels
	# Between two rounds of ours, so that a drift of the machine shows.
	reserve=45
	run torch-train-bf16 optional 70 torch train bf16 "$train"
	run torch-train-bf16-compiled optional 170 torch train bf16 "$train" --compile --cudagraphs
	run torch-train-bf16-$more-compiled optional 170 torch train bf16 "$more" --compile --cudagraphs
	run torch-sample-bf16-$large optional 110 torch sample bf16 "$large" --pure-bf16 --compile --cudagraphs
	reserve=0
	run train-bf16-$train-again optional 40 bench train bf16 "$train"
	run sample-bf16-$large-again optional 40 bench sample bf16 "$large"
	run torch-sample-bf16-$small optional 110 torch sample bf16 "$small" --pure-bf16 --compile --cudagraphs
	run sample-bf16-$small-again optional 40 bench sample bf16 "$small"
	run torch-train-bf16-norm optional 170 torch train bf16 "$train" --compile --cudagraphs --norm-bf16
	run torch-train-tf32 optional 70 torch train tf32 "$train"
	run torch-train-fp32 optional 70 torch train fp32 "$train"
	run sample-tf32-$large optional 40 bench sample tf32 "$large"
	run sample-fp32-$large optional 40 bench sample fp32 "$large"
	run ops-train-bf16-$more optional 60 ops train bf16 "$more"
	run runs-fp32 optional 90 runs fp32
	run plan optional 40 plan
	run commands optional 90 commands
	run default-run optional 90 default_run
}

if [ "${1:-}" = --part ]; then
	part=part_$2
	shift 2
	"$part" "$@"
	exit
fi

root=$(cd "$(dirname "$0")/.." && pwd)
bin=$root/bin seconds=570 quick=no list=no out='' only='' caches='' table=''
# A part is not begun with fewer seconds left than least; reserve is kept for what
# must come after optional parts.
least=5 reserve=0 train=128 more=512 small=64 large=256 limit=0 offset=0 child='' interrupted='' why=''
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage && exit ;;
	--quick | --list) eval "${1#--}=yes" && shift ;;
	--out | --bin | --seconds | --only | --caches | --table)
		[ $# -gt 1 ] || wrong "$1: want a value"
		eval "${1#--}=\$2" && shift 2 ;;
	*) wrong "$1: no such option" ;;
	esac
done
case $seconds in
'' | *[!0-9]* | 0*) wrong "--seconds $seconds: want a whole number, at least 1" ;;
esac

deadline=$(($(now) + seconds))
[ $quick = no ] || train=2 more=4 small=2 large=3

if [ -n "$table" ]; then
	[ -e "$table/results.tsv" ] || wrong "--table $table: there are no results"
	print_table "$table"
	exit
fi
if [ $list = yes ]; then
	parts
	exit
fi

bin=$(absolute "$bin")
[ -x "$bin/ddpm" ] || wrong "there is no program $bin/ddpm: unpack a bundle (make gpu-bundle), or name the folder with --bin"
out=$(absolute "${out:-$root/build/gpu-check/$(date +%Y%m%d-%H%M%S)}")
[ ! -e "$out/results.tsv" ] || wrong "--out $out: has the results of another run"
mkdir -p "$out"
self=$(absolute "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'interrupt 129' HUP
trap 'interrupt 130' INT
trap 'interrupt 143' TERM

# Parts run in folders of their own.
case ${DDPM_LIBCUDA:-} in
*/*) DDPM_LIBCUDA=$(absolute "$DDPM_LIBCUDA") && export DDPM_LIBCUDA ;;
esac
if [ -n "$caches" ]; then
	caches=$(absolute "$caches")
else
	caches=$work/caches
fi
export CUDA_CACHE_PATH="$caches/cuda" DDPM_CACHE="$caches/ddpm" TORCHINDUCTOR_CACHE_DIR="$caches/inductor" TRITON_CACHE_DIR="$caches/triton"
mkdir -p "$CUDA_CACHE_PATH" "$TORCHINDUCTOR_CACHE_DIR" "$TRITON_CACHE_DIR"
export root bin out work quick limit offset

echo "results: $out"
[ $quick = no ] || echo "quick: the figures mean nothing"
parts
[ -s "$out/results.tsv" ] || wrong "--only $only: there are no such parts (--list shows them)"
status=0
print_table "$out" >"$out/table.txt" || status=1
echo
cat "$out/table.txt"
exit "${interrupted:-$status}"

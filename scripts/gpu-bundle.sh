#!/bin/sh
# Packs what scripts/gpu-check.sh needs on a machine with a GPU and perhaps nothing
# else: ddpm and test binaries, testdata, presets, the scripts. There:
#
#   tar xzf gpu-bundle.tar.gz && ddpm-gpu/scripts/gpu-check.sh
#
#   scripts/gpu-bundle.sh [OUT.tar.gz]        (build/gpu-bundle.tar.gz)
#
# The binaries stay in build/gpu, for gpu-check.sh --bin build/gpu. Go and gcc build
# them, as make cuda. They need the C library of the version printed at the end or a
# newer one: for an old system, build on one as old.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
case ${1:-} in
-*) echo "usage: gpu-bundle.sh [OUT.tar.gz]" >&2 && exit 2 ;;
'') out=$root/build/gpu-bundle.tar.gz ;;
/*) out=$1 ;;
*) out=$PWD/$1 ;;
esac
cd "$root"
readonly most=66000000 # bytes of the bundle: below 64 MiB
bin=build/gpu
stage=build/gpu-bundle
name=ddpm-gpu

environment=$(make -s cuda-env)
eval "$environment"
rm -rf $bin $stage
mkdir -p $bin
# Go's own resolver and users need nothing of the C library.
flags="-trimpath -tags gpu,netgo,osusergo -ldflags=-s"
# shellcheck disable=SC2086
go build $flags -o $bin/ddpm ./cmd/ddpm
packages="cmd/ddpm internal/graph/cuda internal/model internal/train"
for package in $packages; do
	# shellcheck disable=SC2086
	go test -c $flags -o "$bin/${package##*/}.test" "./$package"
done

# Tests run in the folder of their package.
mkdir -p $stage/$name/bin $stage/$name/scripts/reference $stage/$name/docs
cd $stage/$name
for package in $packages; do
	mkdir -p "$package"
	[ ! -d "$root/$package/testdata" ] || cp -R "$root/$package/testdata" "$package"
done
cp "$root"/$bin/* bin
cp -R "$root/testdata" .
mkdir configs
cp "$root"/configs/*.yaml configs
cp "$root/scripts/gpu-check.sh" scripts
cp "$root/scripts/reference/bench_train.py" "$root/scripts/reference/unet.py" scripts/reference
cp "$root/docs/cuda.md" docs
libc=$(objdump -T bin/* | sed -n 's/.*(\{0,1\}GLIBC_\([0-9.]*\).*/\1/p' | sort -uV | tail -n 1)
echo "$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown revision), $(go env GOVERSION) $(go env GOOS)/$(go env GOARCH), needs glibc $libc" >VERSION
cd ..
tar --sort=name --owner=0 --group=0 --numeric-owner -cf - $name | gzip -9n >"$out.part"
mv "$out.part" "$out"
cd "$root"
rm -rf $stage

size=$(wc -c <"$out")
echo "$out: $((size / 1000000)) MB; the binaries need glibc $libc or newer"
if [ "$size" -gt $most ]; then
	echo "gpu-bundle.sh: it is larger than $((most / 1000000)) MB" >&2
	exit 1
fi

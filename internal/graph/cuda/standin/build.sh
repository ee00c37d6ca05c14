#!/bin/sh
# Builds the stand-in for CUDA's driver: standin/build.sh OUT_DIR [KERNEL_DIR] makes OUT_DIR/libcuda.so.1 with the
# kernels of KERNEL_DIR and the folders in it, by default ../kernels, compiled for the CPU.
#
# An object file is named after its source and a digest of all that it is made of, and kept in OUT_DIR/standin-objects;
# so only what has changed is compiled, also where KERNEL_DIR is a copy with changes in it. JOBS files are compiled at
# a time, by default as many as there are processors. It needs a compiler for C++17 only (CXX, by default g++).
set -eu
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 OUT_DIR [KERNEL_DIR]" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
kernels=$(cd "${2:-$here/../kernels}" && pwd)
mkdir -p "$1/standin-objects"
out=$(cd "$1" && pwd)
objects=$out/standin-objects
cxx=${CXX:-g++}

# STANDIN_FLAGS is for the stand-in's own tests.
flags="-std=c++17 -O2 -ffp-contract=off -fPIC -fvisibility=hidden -pthread -Wall -Wextra -DSTANDIN ${STANDIN_FLAGS:-}"

# The compiler has kernels report their accesses to races.cc, and what C++ leaves undefined to undefined.cc. Vectors
# would only merge accesses.
kernel_flags="$flags -I$kernels -I$here -I$here/../kernels -Wno-unknown-pragmas -Wno-unused-function -fno-exceptions \
  -fno-tree-vectorize -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 \
  -fsanitize=alignment,bounds,shift,integer-divide-by-zero,signed-integer-overflow \
  -fno-sanitize-recover=undefined"

digest() { sha256sum | cut -c 1-16; }

compiler=$("$cxx" --version | head -n 1)
# The arithmetic of matrix products may use what the processor has; product.cc says why results do not differ.
product_flags="$flags -O3 -ffp-contract=fast"
driver_headers=$(cat "$here"/*.h "$here/../kernels"/device*.h "$here/../kernels"/hopper*.h | digest)
registration=$(cat "$here/module.h" "$here/driver.h" "$here/registration.h" "$here/kernel_source.h" "$here/build.sh" | digest)

# compile makes an object from a source, atomically, so that several builds may share a folder.
compile='
  object=$1
  shift
  "$@" -c -o "$object.$$" && mv "$object.$$" "$object" || { rm -f "$object.$$"; exit 1; }
'

used=""
missing=$objects/missing.$$
trap 'rm -f "$missing"' EXIT
: > "$missing"

want() { # OBJECT SOURCE FLAGS
  used="$used $1"
  [ -e "$1" ] || echo "$1 $cxx $3 $2" >> "$missing"
}

for source in "$here"/*.cc; do
  name=$(basename "$source" .cc)
  own_flags=$flags
  [ "$name" != product ] || own_flags=$product_flags
  key=$( (cat "$source"; echo "$compiler $own_flags $driver_headers") | digest)
  want "$objects/$name-$key.o" "$source" "$own_flags"
done

# A kernel source is compiled with a Registration for each of its kernels. They are what follows KERNEL and BOUNDS(...)
# after preprocessing, so kernels that a macro makes are found too.
list_kernels() {
  "$cxx" -E -P -x c++ -std=c++17 -DSTANDIN -DLIST_KERNELS -I"$kernels" -I"$here/../kernels" "$1" | tr '\n' ' ' |
    sed 's/@kernel/\n&/g' | sed -n 's/^@kernel *\([A-Za-z_][A-Za-z_0-9]*\) *(.*/\1/p'
}

# read_by lists the files that a kernel source includes, and those that they include, itself first. A header of
# KERNEL_DIR comes before one of the same name in ../kernels.
read_by() { # SOURCE
  awk '
    function visit(file, i, n, names) {
      if (!file || seen[file]++) return
      print file
      n = split(includes[file], names, " ")
      for (i = 1; i <= n; i++) visit(place[names[i]])
    }
    FNR == 1 { name = FILENAME; sub(".*/", "", name); if (!(name in place)) place[name] = FILENAME }
    /^#include "/ { split($0, quoted, "\""); includes[FILENAME] = includes[FILENAME] " " quoted[2] }
    END { visit(source) }
  ' source="$1" "$1" $headers
}

# shellcheck disable=SC2012
headers=$(ls "$kernels"/*.h "$kernels"/*/*.h "$here/../kernels"/*.h 2> /dev/null || true)
for source in "$kernels"/*.cu "$kernels"/*/*.cu; do
  [ -e "$source" ] || continue
  name=$(basename "$source")
  read=$(read_by "$source")
  # shellcheck disable=SC2086
  key=$( (cat $read; echo "$compiler $kernel_flags $registration") | sed "s|$kernels||g; s|$here||g" | digest)
  object=$objects/$name-$key.o
  if [ ! -e "$object" ]; then
    {
      echo "#include \"kernel_source.h\""
      echo "namespace {"
      echo "#include \"$source\""
      echo "}"
      list_kernels "$source" | sed 's/.*/static const Registration<&> registration_of_&("&");/'
    } > "$object.cc"
  fi
  want "$object" "$object.cc" "$kernel_flags"
done

xargs -r -P "${JOBS:-$(getconf _NPROCESSORS_ONLN)}" -L 1 sh -c "$compile" compile < "$missing"

# The list of what the library was linked from tells whether it is up to date.
if [ ! -e "$out/libcuda.so.1" ] || [ "$(cat "$objects/linked" 2> /dev/null)" != "$used" ]; then
  # shellcheck disable=SC2086
  "$cxx" -shared -pthread -Wl,-soname,libcuda.so.1 -Wl,-z,defs -o "$out/libcuda.so.1.$$" $used
  mv "$out/libcuda.so.1.$$" "$out/libcuda.so.1"
  echo "$used" > "$objects/linked"
fi

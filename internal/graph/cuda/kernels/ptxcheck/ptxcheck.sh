#!/bin/sh
# ptxcheck.sh: registers, shared memory, spills and local memory of every kernel, as
# the driver's compiler makes it; no GPU is needed. Those of the set sm_80 are compiled
# for an A100 (sm_80) and an H100 (sm_90), those of sm_90a for an H100. Fails where a
# kernel spills or does not compile, and where the compiler warns: that it would wait for
# every single product of a warpgroup ("serialized"), or ignores a number of registers.
#
#   ptxcheck.sh          all modules
#   ptxcheck.sh conv_*   those, by name
#   ptxcheck.sh --fetch  get the compiler from Debian, into build/; installs nothing
#
# The compiler is a library of the driver. Without a driver it comes from Debian's
# package libnvidia-ptxjitcompiler1 (section non-free, 7 MB). PTXCOMPILER names
# another libnvidia-ptxjitcompiler.so.1.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../../../.."
build=build/ptxcheck
mkdir -p $build

# fetch downloads and unpacks the package, with lists of its own, so that the
# machine's are left as they are.
fetch() {
	apt=$PWD/$build/apt
	rm -rf "$apt"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	# The mirror that this machine uses, with the section that it may not have turned on.
	# shellcheck disable=SC2016
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Component: main' 'Origin: Debian' |
		grep -v -e '-security' -e '-updates' -e '-backports' | head -n 1)
	if [ -z "$mirror" ]; then
		echo "ptxcheck: apt knows no mirror of Debian: run apt-get update, or set PTXCOMPILER" >&2
		exit 2
	fi
	echo "deb $mirror non-free" >"$apt/sources.list"
	options="-o Dir::Etc::sourcelist=$apt/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$apt/lists -o Dir::Cache=$apt/cache -o APT::Sandbox::User=$(id -un)"
	# shellcheck disable=SC2086
	apt-get $options update
	# shellcheck disable=SC2086
	(cd "$apt" && apt-get $options download libnvidia-ptxjitcompiler1)
	dpkg-deb -x "$apt"/libnvidia-ptxjitcompiler1_*.deb "$apt/root"
	cp -L "$(find "$apt/root" -name libnvidia-ptxjitcompiler.so.1)" $build/
	rm -rf "$apt"
}

if [ "${1:-}" = --fetch ]; then
	fetch
	exit
fi

library=${PTXCOMPILER:-}
if [ -z "$library" ]; then
	library=libnvidia-ptxjitcompiler.so.1
	if [ -e $build/$library ]; then
		library=$PWD/$build/$library
	elif ! ldconfig -p | grep -q $library; then
		echo "ptxcheck: there is no $library, which the NVIDIA driver brings; ptxcheck.sh --fetch gets it from Debian" >&2
		exit 2
	fi
fi

"${CC:-cc}" -O2 -Wall -Wextra -Werror -o $build/ptxcheck "$here/ptxcheck.c" -ldl

if [ $# -eq 0 ]; then
	set -- '*'
fi
# A line for each compilation: architecture, set, module.
compilations=$build/compilations
: >$compilations
for pattern; do
	found=
	for ptx in "$here"/../ptx/*/$pattern.ptx; do
		[ -e "$ptx" ] || continue
		found=yes
		set_name=$(basename "$(dirname "$ptx")")
		case $set_name in
		sm_80) architectures='sm_80 sm_90' ;;
		*) architectures=$set_name ;;
		esac
		for architecture in $architectures; do
			echo "$architecture $set_name $(basename "$ptx" .ptx)" >>$compilations
		done
	done
	if [ -z "$found" ]; then
		echo "ptxcheck: there is no module $pattern" >&2
		exit 2
	fi
done

# Rows go to a file for each, so that those of modules checked side by side do not mix.
status=0
xargs -P "$(nproc)" -L 1 sh -c '
	"$0/ptxcheck" "$1" "$3" "$2/$4/$5.ptx" >"$0/$3-$5.txt" 2>&1
' $build "$library" "$here/../ptx" <$compilations || status=1

echo "target  registers  shared  spills   local  kernel (all but registers in bytes)"
while read -r architecture _ module; do
	cat $build/"$architecture-$module".txt
done <$compilations
exit $status

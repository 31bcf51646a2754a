#!/bin/sh
# Compiles bpf/*.bpf.c into sensor/mmsensor/_bpf/. Needs clang (>= 14) and libbpf's headers (>= 0.5).
# MM_ARCH=x86|arm64 builds for the other architecture; CLANG and OUT may be set too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/../sensor/mmsensor/_bpf}
case ${MM_ARCH:-$(uname -m)} in
x86 | x86_64) arch=x86 ;;
arm64 | aarch64) arch=arm64 ;;
*)
	echo "bpf/build.sh: no support for ${MM_ARCH:-$(uname -m)}: the probes know x86_64 and aarch64" >&2
	exit 1
	;;
esac
mkdir -p "$out"
for source in "$here"/*.bpf.c; do
	object=$out/$(basename "$source" .c).o
	# The multiarch folder has <asm/types.h>, which <linux/bpf.h> includes; it is the same everywhere.
	"${CLANG:-clang}" -O2 -g -Wall -Werror -target bpf -mcpu=v2 -D__TARGET_ARCH_$arch \
		-idirafter "/usr/include/$(uname -m)-linux-gnu" -I"$here" -c "$source" -o "$object.new"
	mv "$object.new" "$object"
done
# What BCC compiles on a machine whose kernel has no BTF: compat.h says how it differs.
"${CLANG:-clang}" -E -P -DMM_BCC -D__TARGET_ARCH_$arch -nostdinc -idirafter /usr/include -I"$here" \
	"$here/tls.bpf.c" -o "$out/tls.bcc.c.new"
mv "$out/tls.bcc.c.new" "$out/tls.bcc.c"

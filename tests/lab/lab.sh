# shellcheck shell=bash disable=SC2034
# Sourced by the scripts beside it: where everything is kept, how to complain, and how a root file system is built
# such that an interrupted build never passes for a finished one.
LAB=$(realpath -m "${OCI_SYSTEMD_HOOK_LAB:-/var/tmp/oci-systemd-hook-lab}")
export OCI_SYSTEMD_HOOK_LAB=$LAB
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)

die() { echo "${0##*/}: $*" >&2; exit 1; }

# usage: print the comment at the top of the calling script, and fail.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2; exit 64; }

need() {
    local tool
    for tool; do command -v "$tool" >/dev/null || die "$tool is missing: tests/lab/needs installs it"; done
}

[ "$(id -u)" = 0 ] || die "needs root"
mkdir -p "$LAB/rootfs" "$LAB/runtimes" "$LAB/boot"

# is_built TREE RECIPE: whether TREE is there, and made by this recipe.
is_built() { [ -d "$1" ] && [ "$(cat "$1.recipe" 2>/dev/null)" = "$2" ]; }

# build TREE RECIPE SUITE PACKAGES [OPTION…]: a Debian root as a directory and as TREE.tar.
build() {
    local tree=$1 recipe=$2 suite=$3 packages=$4
    local options=(--variant=minbase --format=tar "--include=$packages" "${@:5}")
    need mmdebstrap tar
    # A mirror that is a snapshot serves an unstable suite whose Release file has run out.
    [ "$suite" != sid ] || options+=(--aptopt='Acquire::Check-Valid-Until "false"')
    rm -rf "$tree" "$tree.new" "$tree.tar" "$tree.recipe"
    echo "${0##*/}: building $tree" >&2
    timeout --foreground 900 mmdebstrap "${options[@]}" "$suite" "$tree.tar.new" >"$tree.log" 2>&1 </dev/null ||
        die "cannot build $tree: $(grep -E '^(E:|.*[Ee]rror)' "$tree.log" | tail -n 1) (its log: $tree.log)"
    mkdir "$tree.new"
    tar -C "$tree.new" -xpf "$tree.tar.new" --numeric-owner --xattrs --xattrs-include='*'
    mv "$tree.tar.new" "$tree.tar"
    mv "$tree.new" "$tree"
    printf '%s\n' "$recipe" >"$tree.recipe"
}

# lock FILE: one builder at a time; the lock ends with this process and what it started.
lock() {
    need flock
    exec 9>"$1"
    flock --wait 1800 9 || die "another build holds $1"
}

# systemd_version TREE: the number in the name of systemd's own shared library.
systemd_version() {
    find "$1/usr/lib" "$1/lib/" -name 'libsystemd-shared-*.so' 2>/dev/null | sed -n 's/.*-shared-\([0-9]*\).*/\1/p;q'
}

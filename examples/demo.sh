#!/usr/bin/env bash
# The whole story on one screen, as root on Debian or Ubuntu: builds the hook, and from Debian's packages the root file
# system of examples/systemd-sshd; boots it with runc as examples/runc/config.json says, without the hook and with it.
#   make demo               SUITE=trixie make demo for another Debian
# The root file system and console logs are kept in ${OCI_SYSTEMD_HOOK_LAB:-/var/tmp/oci-systemd-hook-lab}/demo, for a
# second run; all else is gone at the end, however it ends. Exit status 0 means that every step did what it shows.
# shellcheck disable=SC2016 # what is in single quotes is for another shell, jq or the reader
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${SUITE:-bookworm}
lab=$(realpath -m "${OCI_SYSTEMD_HOOK_LAB:-/var/tmp/oci-systemd-hook-lab}")/demo
tree=$lab/$suite
name=oci-systemd-hook-demo-$$
hook=${BINARY:-target/release/oci-systemd-hook}

if [ -t 1 ]; then
    headline=$'\e[1;34m' good=$'\e[32m' bad=$'\e[31m' plain=$'\e[0m'
else
    headline='' good='' bad='' plain=''
fi
say() { printf '\n%s== %s%s\n' "$headline" "$*" "$plain"; }
ok() { printf '%s-> %s%s\n' "$good" "$*" "$plain"; }
die() { printf '%sdemo: %s%s\n' "$bad" "$*" "$plain" >&2; exit 1; }

prepare() {
    [ "$(id -u)" = 0 ] || die 'needs root: sudo env "PATH=$PATH" make demo'
    say 'What it needs'
    install_packages
    "${MAKE:-make}" --no-print-directory build
    hook=$(realpath "$hook")

    # A change of the recipe is a new image.
    local recipe; recipe=$(cat examples/systemd-sshd/{build,cleanup}.sh | sha256sum)
    mkdir -p "$lab"
    exec 9>"$lab/lock"
    flock --wait 900 9 || die "another demo holds $lab/lock"
    if [ "$recipe" != "$(cat "$tree.recipe" 2>/dev/null)" ]; then
        echo "building $tree from Debian packages, about half a minute ($tree.log)"
        build_tree
        echo "$recipe" >"$tree.recipe"
    fi
    ok "$hook, $(du -sh "$tree" | cut -f1) of Debian with systemd in $tree"
}

install_packages() {
    local packages=() entry
    for entry in mmdebstrap:mmdebstrap runc:runc jq:jq script:bsdutils nsenter:util-linux mount:mount ssh:openssh-client; do
        command -v "${entry%:*}" >/dev/null || packages+=("${entry#*:}")
    done
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || packages+=(debian-archive-keyring)
    [ ${#packages[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this is not Debian or Ubuntu: install what is here called ${packages[*]}"
    echo "installing ${packages[*]}"
    { DEBIAN_FRONTEND=noninteractive apt-get -q update &&
        DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends "${packages[@]}"; } \
        >"$lab.apt.log" 2>&1 || die "apt-get cannot install ${packages[*]}: $(tail -n 1 "$lab.apt.log")"
}

# The same two scripts that the Containerfile runs; the host's name and resolver are an engine's matter.
build_tree() {
    rm -rf "$tree" "$tree.new" "$tree.recipe"
    timeout 900 mmdebstrap --variant=minbase \
        --customize-hook='copy-in examples/systemd-sshd/build.sh examples/systemd-sshd/cleanup.sh /tmp' \
        --customize-hook='chroot "$1" sh -c "/tmp/build.sh && /tmp/cleanup.sh && rm /tmp/build.sh /tmp/cleanup.sh"' \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf"' \
        "$suite" "$tree.new" >"$tree.log" 2>&1 </dev/null ||
        die "mmdebstrap failed: $(grep -E '^(E:|build.sh:)' "$tree.log" | tail -n 1) ($tree.log)"
    mv "$tree.new" "$tree"
}

# bundle DIR JQ-FILTER: examples/runc/config.json with the hook just built, over a writable copy of the tree.
bundle() {
    mkdir -p "$1"/{rootfs,upper,work}
    mount -t overlay -o "lowerdir=$tree,upperdir=$1/upper,workdir=$1/work" overlay "$1/rootfs"
    jq --arg hook "$hook" --arg key "$(cat "$work/key.pub")" '
        .hooks[][].path = $hook
        | .process.env += ["SSH_AUTHORIZED_KEYS=\($key)"]' examples/runc/config.json | jq "$2" >"$1/config.json"
}

# start ID: runc in a terminal of its own, whose output, all that is written to /dev/console, is kept in $lab/ID.log.
# script(1) ends with the exit status of runc, and that is the one of PID 1.
start() {
    : >"$lab/$1.log"
    script --quiet --flush --return --command "runc run --bundle '$work/$1' '$name-$1'" "$lab/$1.log" \
        </dev/null >/dev/null 2>&1 9>&- &
    runc_pid=$!
}

# within SECONDS COMMAND: until it succeeds.
within() {
    local deadline=$((SECONDS + $1)); shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}
has_ended() { ! kill -0 "$runc_pid" 2>/dev/null; }
is_running() { [ "$(inside systemctl is-system-running 2>/dev/null)" = running ]; }
inside() { timeout 20 runc exec "$name-$current" "$@" </dev/null; }

# console ID: the console, without what only a terminal understands.
console() { sed -E 's/\x1b\[[0-9;?]*[A-Za-z]|\x1bM|\r|^\^@//g; /^Script (started|done)/d; /^$/d' "$lab/$1.log"; }
indent() { sed 's/^/   | /'; }

start_with_hook() {
    current=$1
    bundle "$work/$1" .
    start "$1"
    within 120 has_ended_or_is_running || true
    if ! is_running; then
        console "$1" | tail -n 20 | indent
        inside systemctl --failed --no-pager 2>&1 | indent || true
        die "systemd did not come up: $lab/$1.log"
    fi
}
has_ended_or_is_running() { has_ended || is_running; }

# ended_cleanly ID: the exit status of PID 1, and nothing left of it.
ended_cleanly() {
    local status=0 left
    wait "$runc_pid" || status=$?
    runc_pid=
    [ $status = 0 ] || die "PID 1 of the container ended with status $status"
    ! runc state "$name-$1" >/dev/null 2>&1 || die "runc still knows $name-$1"
    left=$(find /sys/fs/cgroup -depth -type d -name "*$name-$1*" 2>/dev/null)
    [ -z "$left" ] || die "left behind: $left"
}

seconds_since() { awk "BEGIN { printf \"%.1f\", (${EPOCHREALTIME/[.,]/} - $1) / 1e6 }"; }

show() {
    say "Without the hook: runc run, with Docker's capabilities and no more"
    bundle "$work/without" 'del(.hooks)'
    start without
    within 30 has_ended || die 'it did not end'
    console without | tail -n 5 | indent
    ok 'systemd wants a tmpfs on /run, may not mount one, and gives up'

    say 'With the hook: the same image, the same config.json, and its hook'
    jq -r '.hooks | to_entries[] | "\(.key): \(.value[0].path) \(.value[0].args[1:] | join(" "))"' \
        examples/runc/config.json | indent
    local started=${EPOCHREALTIME/[.,]/}
    start_with_hook one
    console one | sed -n 1,12p | cut -c1-110 | indent
    echo '   | ...'
    console one | grep -vE '^.?.?.?login: ?$' | tail -n 6 | cut -c1-110 | indent
    ok "up in $(seconds_since "$started") s"

    say 'systemctl status'
    inside systemctl status --no-pager | sed -n 1,24p | indent
    [ "$(inside systemctl is-system-running)" = running ]
    ok "is-system-running: $(inside systemctl is-system-running)"
    echo "   | $(inside sh -c 'grep CapEff /proc/1/status') of 000001ffffffffff: no CAP_SYS_ADMIN"

    say 'What the hook prepared, in /proc/mounts of the container'
    inside grep -E ' /(run|tmp|sys/fs/cgroup)' /proc/mounts | grep -E ' /(run|tmp)| rw,' | indent
    inside mountpoint -q /run
    echo "   | machine ID: $(inside cat /etc/machine-id)"

    say 'A login with ssh, over the loopback of the container'
    # The container's own key, made at its start, is the only one that is accepted.
    echo "127.0.0.1 $(inside cat /etc/ssh/ssh_host_ed25519_key.pub)" >"$work/known_hosts"
    local pid answer; pid=$(runc state "$name-one" | jq .pid)
    answer=$(timeout 60 nsenter --net="/proc/$pid/ns/net" ssh -n -F none -i "$work/key" -o IdentitiesOnly=yes \
        -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=yes -o UserKnownHostsFile="$work/known_hosts" \
        root@127.0.0.1 'echo "$(id -un)@$(hostname)"; loginctl list-sessions --no-legend
            systemctl --user is-system-running --wait; systemctl --user status --no-pager | head -n 9') ||
        die "the login failed: $(inside journalctl --no-pager -n 10 -u ssh)"
    indent <<<"$answer"
    grep -qx running <<<"$answer" || die 'systemctl --user does not work'
    ok 'a session of logind, and a systemd of the user, running'

    say 'poweroff, said inside'
    started=${EPOCHREALTIME/[.,]/}
    inside systemctl poweroff
    within 60 has_ended || die 'poweroff did not end it'
    ended_cleanly one
    console one | tail -n 3 | indent
    ok "ended in $(seconds_since "$started") s, PID 1 with status 0, and nothing is left of it"

    say 'Another one, and the stop signal: runc kill ID 37 (SIGRTMIN+3)'
    start_with_hook two
    echo "   | machine ID: $(inside cat /etc/machine-id)"
    started=${EPOCHREALTIME/[.,]/}
    runc kill "$name-two" 37
    within 60 has_ended || die 'signal 37 did not end it'
    ended_cleanly two
    console two | tail -n 3 | indent
    ok "ended in $(seconds_since "$started") s"
}

clean_up() {
    local status=$? container
    trap '' EXIT INT TERM
    for container in without one two; do runc delete --force "$name-$container" >/dev/null 2>&1 || true; done
    if [ -n "$runc_pid" ]; then within 10 has_ended || kill -KILL "$runc_pid" || true; fi
    umount --recursive "$work" || true
    rmdir "$work" || true
    if [ $status = 0 ]; then
        say 'All of it worked, and all is cleaned up. For your own image: README.md'
    else
        printf '\n%sdemo: failed; the consoles are in %s%s\n' "$bad" "$lab/*.log" "$plain" >&2
    fi
    exit $status
}

# A mount namespace of its own: no mount outlives this process, whatever happens to it. exec keeps the process ID.
if [ "${DEMO_INSIDE:-}" != $$ ]; then
    prepare
    BINARY=$hook DEMO_INSIDE=$$ exec unshare --mount --propagation private -- "$0"
fi
runc_pid='' work=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM
mount -t tmpfs -o mode=700 tmpfs "$work"
ssh-keygen -q -t ed25519 -N '' -C demo -f "$work/key"
show

#!/usr/bin/env bash
# Remove from the root file system this runs in what an image must not have: what would be the same in all containers
# made from it and has to differ (host keys, machine ID, random seed), and what only takes room (caches, logs).
set -euo pipefail

if command -v apt-get >/dev/null; then
    apt-get -q clean
    rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/lib/dpkg/*-old
elif command -v dnf >/dev/null; then
    dnf --quiet clean all
    rm -rf /var/cache/dnf /var/cache/libdnf5 /var/lib/dnf/history*
fi

rm -f /etc/ssh/ssh_host_*

# Empty, not missing: a missing one is a first boot to systemd, and a read-only root needs a file to bind one over.
: >/etc/machine-id
if [ -d /var/lib/dbus ]; then ln -sf /etc/machine-id /var/lib/dbus/machine-id; fi
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret

# The folders stay: services expect their own in /var/log, with its owner and mode.
find /var/log -type f -delete
rm -rf /var/cache/ldconfig/* /root/.bash_history

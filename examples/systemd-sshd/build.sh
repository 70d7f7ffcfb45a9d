#!/usr/bin/env bash
# Turn the root file system this runs in, a fresh Debian (minbase is enough) or Fedora, into a systemd + sshd image.
# The Containerfile runs it; it also works as root in a chroot, with the network and /etc/resolv.conf in place.
# cleanup.sh comes after it, before the image is made.
set -euo pipefail

main() {
    if command -v apt-get >/dev/null; then
        install_on_debian
        sshd=ssh.service
    elif command -v dnf >/dev/null; then
        install_on_fedora
        sshd=sshd.service
    else
        echo 'build.sh: neither apt-get nor dnf is here: the base has to be a Debian or a Fedora' >&2
        exit 1
    fi
    mask_what_makes_no_sense
    prepare_sshd
    relax_loginuid
    stop_user_managers_quickly
}

install_on_debian() {
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    # In a chroot of a host nothing may be started: an sshd would take the host's port. Base images have this already.
    local policy=/usr/sbin/policy-rc.d made=false
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=true
    fi
    apt-get -q update
    # libpam-systemd and dbus-user-session are what gives a login its `systemctl --user`.
    apt-get -q install --yes --no-install-recommends \
        systemd systemd-sysv dbus libpam-systemd dbus-user-session openssh-server
    ! $made || rm $policy
}

install_on_fedora() {
    dnf --assumeyes --setopt=install_weak_deps=False install systemd systemd-pam dbus-broker openssh-server
    systemctl enable dbus-broker.service
}

# What belongs to the machine and not to a container. Most of it finds that out by itself, but not when /sys is
# writable (udev) or systemd does not know that it is in a container. Masked and not removed, so that a package that
# brings such a unit later does not start it. Units that need nothing but what a container has are left alone,
# console-getty.service among them: it is the login prompt of `run -t`.
mask_what_makes_no_sense() {
    local units=(
        # the devices are the host's
        systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket
        systemd-udev-trigger.service systemd-udev-settle.service systemd-hwdb-update.service
        # there are no virtual or serial terminals
        getty@.service autovt@.service getty@tty1.service serial-getty@.service systemd-vconsole-setup.service
        # the kernel's own file systems; /dev/mqueue is not among them, runtimes mount it
        dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount
        sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
        # the kernel's modules, clock and random numbers
        systemd-modules-load.service kmod-static-nodes.service systemd-binfmt.service
        systemd-timesyncd.service chronyd.service systemd-random-seed.service
        # the root file system is the runtime's
        systemd-remount-fs.service
    )
    # It warns of each unit that this distribution or version does not have.
    systemctl --quiet mask "${units[@]}" 2>/dev/null
}

prepare_sshd() {
    # Included before the distribution's own settings, and the first value counts.
    cat >/etc/ssh/sshd_config.d/10-container.conf <<'CONF'
# Nobody has a password that could be guessed: keys only.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
# The second one is made from the container's SSH_AUTHORIZED_KEYS, see ssh-container-keys.service.
AuthorizedKeysFile .ssh/authorized_keys /run/ssh-container-keys/%u
CONF

    # The keys that identify the container are made in the container: an image with keys would give all its containers
    # the same, for everyone who has the image to read. Those that exist, on a volume say, are kept. Fedora has units
    # of its own for it (sshd-keygen@): they come later, and find nothing to do.
    #
    # And who may log in is said from outside, in one of two ways:
    # - the environment variable SSH_AUTHORIZED_KEYS, one key a line, for root;
    # - a file mounted on /root/.ssh/authorized_keys. sshd wants it to be root's *in the container*, so a file of the
    #   user who calls a rootful engine is refused ("bad ownership or modes"): then use the variable.
    cat >/etc/systemd/system/ssh-container-keys.service <<'UNIT'
[Unit]
Description=SSH keys of this container
Before=ssh.service sshd.service ssh.socket sshd.socket
Before=sshd-keygen.target sshd-keygen@rsa.service sshd-keygen@ecdsa.service sshd-keygen@ed25519.service

[Service]
Type=oneshot
RemainAfterExit=yes
PassEnvironment=SSH_AUTHORIZED_KEYS
RuntimeDirectory=ssh-container-keys
UMask=0022
ExecStart=/usr/bin/ssh-keygen -A
ExecStart=/bin/sh -c 'printf "%%s\\n" "$${SSH_AUTHORIZED_KEYS-}" >/run/ssh-container-keys/root'

[Install]
RequiredBy=ssh.service sshd.service
UNIT

    # Enabled here: a container with a machine ID has no first boot, and so presets are never applied.
    systemctl enable ssh-container-keys.service "$sshd"
    # One way to listen, not two: Ubuntu's socket unit would start sshd at the first connection.
    ! systemctl --quiet is-enabled ssh.socket 2>/dev/null || systemctl disable ssh.socket

    check_sshd
}

# That what is written above is what sshd makes of it, whatever the distribution's own files say.
check_sshd() {
    local work; work=$(mktemp -d)
    mkdir -p /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f "$work/key" # it does not even tell without one
    sshd -T -h "$work/key" >"$work/effective"
    if ! grep -qx 'passwordauthentication no' "$work/effective"; then
        echo 'build.sh: sshd does not read /etc/ssh/sshd_config.d: OpenSSH 8.2 or newer is needed' >&2
        exit 1
    fi
    rm -r "$work"
    rmdir /run/sshd
}

# The login UID for the kernel's audit is set once. A container that somebody started from a login of theirs has it,
# and may not set another: pam_loginuid fails, and with it sessions that require it.
relax_loginuid() {
    local file
    # The distribution's defaults, which a file of the same name in /etc replaces.
    for file in /usr/lib/pam.d/*; do
        [ -e "/etc/pam.d/${file##*/}" ] || ! grep -qs 'required.*pam_loginuid' "$file" || cp "$file" /etc/pam.d/
    done
    sed -i -E 's/^(session[[:space:]]+)required([[:space:]]+pam_loginuid\.so)/\1optional\2/' /etc/pam.d/*
}

# On a cgroup v1 host nobody tells a systemd in a container that a cgroup is empty now. When a user's systemd ends, its
# helper (sd-pam) is often still there: PID 1 kills it with the cgroup, and then waits two minutes for news that never
# come, at each poweroff soon after a login. The helper ends by itself, so nothing needs to be killed.
stop_user_managers_quickly() {
    mkdir -p /etc/systemd/system/user@.service.d
    cat >/etc/systemd/system/user@.service.d/10-container.conf <<'CONF'
[Service]
SendSIGKILL=no
CONF
}

main

# GNU make. What each target does is in the comment behind its name; `make` alone shows them.

PREFIX ?= /usr
DESTDIR ?=
CARGO ?= cargo
INSTALL ?= install

# An explicit --target, even if it is this machine's own: only then are procedural macros, which have to be loaded at
# run time, built without crt-static.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# Where it was built is not in it, so that two builds of one lock file are the same, byte by byte: make reproducible.
REMAP := --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo
STATIC := RUSTFLAGS="$(strip $(RUSTFLAGS) -C target-feature=+crt-static $(REMAP))"
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where it is found without rustc, which root may not have: make build && sudo make install.
BINARY := $(TARGET)/oci-systemd-hook

HOOK := $(PREFIX)/libexec/oci/hooks.d/oci-systemd-hook
HOOKS_D := $(PREFIX)/share/containers/oci/hooks.d
CDI := /etc/cdi
MAN := $(PREFIX)/share/man/man8

.DEFAULT_GOAL := help
.PHONY: help build reproducible install uninstall demo test test-vm compatibility lint deny clean need-cargo

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r target text; do \
		printf '  make %-14s %s\n' "$$target" "$$text"; done

need-cargo:
	@command -v $(CARGO) >/dev/null && command -v rustc >/dev/null || { \
		echo 'make: cargo is missing: get Rust 1.88 or newer from https://rustup.rs, or, if it is there but not' \
		'for root, say sudo env "PATH=$$PATH" make ...' >&2; exit 1; }

build: need-cargo ## the release binary, static: there is no run-time loader for an image to interfere with
	$(STATIC) $(CARGO) build --release --locked --target $(HOST)
	$(INSTALL) -m 755 $(TARGET)/$(HOST)/release/oci-systemd-hook $(BINARY)
	@headers=$$(readelf --program-headers --wide $(BINARY)) && case $$headers in *INTERP*) \
		echo 'make: $(BINARY) is not static' >&2; exit 1;; esac
	@echo 'built $(BINARY)'

reproducible: need-cargo ## build it twice, in two folders and with two CARGO_HOMEs, and compare
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	for copy in one another; do \
		git clone --quiet . "$$work/$$copy"; mkdir -p "$$work/$$copy/home"; \
		for part in config.toml config registry; do \
			[ ! -e "$(or $(CARGO_HOME),$(HOME)/.cargo)/$$part" ] || cp -a "$(or $(CARGO_HOME),$(HOME)/.cargo)/$$part" "$$work/$$copy/home"; done; \
		CARGO_HOME="$$work/$$copy/home" CARGO_TARGET_DIR="$$work/$$copy/target" $(MAKE) --no-print-directory -C "$$work/$$copy" build; \
	done; \
	sha256sum "$$work"/*/target/oci-systemd-hook | sed "s|$$work/||"; \
	cmp "$$work/one/target/oci-systemd-hook" "$$work/another/target/oci-systemd-hook"

# The binary is not built here, so that `sudo make install` leaves no files of root's in the checkout.
# podman looks for registrations below /usr alone: with another PREFIX it has to be told (hooks_dir in containers.conf).
install: ## install what was built (DESTDIR=, PREFIX=/usr)
	@test -x $(BINARY) || { echo 'make: there is no $(BINARY): run make build' >&2; exit 1; }
	$(INSTALL) -D -m 755 $(BINARY) $(DESTDIR)$(HOOK)
	$(INSTALL) -d $(DESTDIR)$(HOOKS_D) $(DESTDIR)$(CDI)
	for file in hooks.d/*.json; do \
		sed 's|/usr/libexec/oci/hooks.d/oci-systemd-hook|$(HOOK)|' $$file >$(DESTDIR)$(HOOKS_D)/$${file##*/} && \
		chmod 644 $(DESTDIR)$(HOOKS_D)/$${file##*/} || exit 1; done
	sed 's|/usr/libexec/oci/hooks.d/oci-systemd-hook|$(HOOK)|' cdi/oci-systemd-hook.json >$(DESTDIR)$(CDI)/oci-systemd-hook.json
	chmod 644 $(DESTDIR)$(CDI)/oci-systemd-hook.json
	$(INSTALL) -D -m 644 man/oci-systemd-hook.8 $(DESTDIR)$(MAN)/oci-systemd-hook.8

# The registrations go first: Docker refuses containers of a device whose hook is not there.
uninstall: ## remove what install put there (the same DESTDIR and PREFIX)
	rm -f $(patsubst hooks.d/%,$(DESTDIR)$(HOOKS_D)/%,$(wildcard hooks.d/*.json))
	rm -f $(DESTDIR)$(CDI)/oci-systemd-hook.json $(DESTDIR)$(HOOK) $(DESTDIR)$(MAN)/oci-systemd-hook.8

demo: ## show it: systemd and sshd in an unprivileged container, without the hook and with it (root)
	@MAKE='$(MAKE)' BINARY='$(BINARY)' examples/demo.sh

# One at a time would take twice as long; more than two boots at once make each other's time limits meaningless.
test: need-cargo ## install what is needed, then run all tests, on real runtimes (root)
	@test "$$(id -u)" = 0 || { echo 'make: test needs root; cargo test runs what does not' >&2; exit 1; }
	tests/lab/needs
	tests/lab/images
	tests/lab/runtimes
	tests/lab/youki
	$(STATIC) $(CARGO) test --release --locked --target $(HOST) -- --include-ignored --test-threads=2

test-vm: need-cargo ## a short form of it on machines with Debian's kernels 5.10, 6.1 and 6.12, and with SELinux, in qemu (root, 35 minutes)
	tests/lab/needs
	tests/lab/images bullseye bookworm trixie sid
	tests/lab/runtimes
	@try() { \
		$(STATIC) CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(CURDIR)/tests/lab/vm $$1" \
		$(CARGO) test --release --locked --target $(HOST) --test $$2 -- \
		--ignored --nocapture $$3; }; \
	for kernel in 5.10 6.1 6.12; do try $$kernel vm '--test-threads=1 --skip selinux' || exit 1; done; \
	try '--selinux 6.12' vm '--test-threads=1 selinux' && \
	try 6.12 faults '--test-threads=2 --skip a_place_is_made --skip hierarchies_that_are_read_only' # these are of other hosts

compatibility: need-cargo ## run the matrix, and write the README's table of what it saw (root)
	tests/lab/needs
	tests/lab/images
	tests/lab/runtimes
	tests/lab/youki
	mkdir -p target && rm -f target/compatibility
	COMPATIBILITY=$(CURDIR)/target/compatibility $(STATIC) $(CARGO) test --release --locked --target $(HOST) \
		--test runtime -- --ignored --nocapture --test-threads=2 matrix_of_
	tests/lab/compatibility target/compatibility README.md

# The pages are for people who change it, and so have the private items; only that makes links to them work.
lint: need-cargo ## formatting, clippy and rustdoc, with warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --locked --no-deps --document-private-items

deny: need-cargo ## licences, second versions and sources of the crates (cargo install --locked cargo-deny)
	$(CARGO) deny --locked check bans licenses sources

clean: ## remove what cargo built; what the tests and the demo built is in /var/tmp/oci-systemd-hook-lab
	$(CARGO) clean

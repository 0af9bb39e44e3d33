# Everything real is in xtask; this file gives it short names.
SYSTEMD ?= 257
MODE ?= user
PREFIX ?= /usr
DESTDIR ?= /
XTASK = target/release/xtask
ifneq (,$(filter shell,$(MAKECMDGOALS)))
-load target/become.so
endif

.SILENT:
.PHONY: help build guest kernel test check-cross soak bench shell shell-stop install uninstall dist clean

help: ## Show this list
	sed -n 's/^\([a-z-]*\):[^#]*## */\1\t/p' Makefile | awk -F'\t' '{ printf "%-11s %s\n", $$1, $$2 }'

target/build-deps: packaging/build-deps packaging/build-deps.txt
	packaging/build-deps
	mkdir -p target
	touch $@

$(XTASK): Cargo.toml xtask/Cargo.toml tests/Cargo.toml $(shell find xtask/src tests/src -type f) | target/build-deps
	cargo build --quiet --release -p xtask
	touch $@

build: $(XTASK) ## Build the programs and the guest's files
	$(XTASK) build
	$(XTASK) guest

guest: $(XTASK) ## Build initramfs and base image of guests of both architectures
	$(XTASK) guest

kernel: $(XTASK) ## Build the guest kernels, once per cache: 14 minutes on two cores
	$(XTASK) kernel

test: $(XTASK) ## Set up what is missing and run every suite [ONLY=part of a title]
	$(XTASK) test $(if $(ONLY),--only '$(ONLY)')

check-cross: $(XTASK) ## Check that it compiles for arm64 Linux and macOS, and links for macOS: 30 minutes
	$(XTASK) check-cross

soak: $(XTASK) ## Long runs, with figures in docs/SOAK.md [ONLY=part of a title] [MINUTES=for each part]
	$(XTASK) soak $(if $(ONLY),--only '$(ONLY)') $(if $(MINUTES),--minutes '$(MINUTES)')

bench: $(XTASK) ## Measure ratios against floors and peers [ONLY=cold|session|link|daemon|kits|fleet|images|agent]
	$(XTASK) bench $(if $(ONLY),--only '$(ONLY)')

shell: $(XTASK) ## Prompt in a machine [RUN='command' | SCRIPT=file] [SYSTEMD=257|252] [MODE=user|system] [NAME=machine]
	$(become $(value RUN),exec $(XTASK) shell --systemd $(SYSTEMD) --mode $(MODE) $(if $(NAME),--name $(NAME)) $(if $(SCRIPT),--script '$(SCRIPT)') $(if $(value RUN),--run "$$AEGIS_RUN"))

target/become.so: xtask/become.c | target/build-deps
	cc -shared -fPIC -o $@ $<

shell-stop: $(XTASK) ## Stop the machines of make shell with all that runs there [NAME=machine]
	$(XTASK) shell-stop $(if $(NAME),--name $(NAME))

install: $(XTASK) ## Install what is built [DESTDIR=] [PREFIX=/usr]
	$(XTASK) install --destdir '$(DESTDIR)' --prefix '$(PREFIX)'

uninstall: $(XTASK) ## Remove what install put there [DESTDIR=] [PREFIX=/usr]
	$(XTASK) uninstall --destdir '$(DESTDIR)' --prefix '$(PREFIX)'

dist: $(XTASK) ## Build the packages of every kind, into target/dist
	$(XTASK) dist

clean: $(XTASK) ## Remove what was built; the cache of roots and kernels stays
	$(XTASK) clean

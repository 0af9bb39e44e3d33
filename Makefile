# Everything real is in xtask; this file gives it short names.
SYSTEMD ?= 257
MODE ?= user
PREFIX ?= /usr
DESTDIR ?= /
XTASK = target/release/xtask
# As typed: make would expand the $ of a shell command.
export AEGIS_RUN := $(value RUN)

.SILENT:
.PHONY: help shell shell-stop install

help: ## Show this list
	sed -n 's/^\([a-z-]*\):[^#]*## */\1\t/p' Makefile | sort | awk -F'\t' '{ printf "%-12s %s\n", $$1, $$2 }'

$(XTASK): Cargo.toml xtask/Cargo.toml tests/Cargo.toml $(shell find xtask/src tests/src -type f)
	cargo build --quiet --release -p xtask
	touch $@

shell: $(XTASK) ## Prompt in a machine with systemd [RUN='command' | SCRIPT=file] [SYSTEMD=257|252] [MODE=user|system] [NAME=machine]
	$(XTASK) shell --systemd $(SYSTEMD) --mode $(MODE) $(if $(NAME),--name $(NAME)) $(if $(SCRIPT),--script '$(SCRIPT)') $(if $(value RUN),--run "$$AEGIS_RUN")

shell-stop: $(XTASK) ## Stop the machines of make shell and all in them [NAME=machine]
	$(XTASK) shell-stop $(if $(NAME),--name $(NAME))

install: $(XTASK) ## Install what is built [DESTDIR=] [PREFIX=/usr]
	$(XTASK) install --destdir '$(DESTDIR)' --prefix '$(PREFIX)'

# The two commands that a newcomer needs are `make demo` and `make test`; both set up what they need.
# RocksDB's C++ takes half an hour on two cores, so it is built once, into the user's cache, and every
# profile, feature set and checkout links that library.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

cache      := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/morphkv
arch       := $(shell uname -m)
# Another version, flag or feature set gets another name, so that an old library is never linked by mistake.
ifeq ($(arch),x86_64)
cpu        := x86-64-v2
rocksdb    := $(cache)/rocksdb-11.8.1-x86-64-v2
else
cpu        := generic
rocksdb    := $(cache)/rocksdb-11.8.1-$(arch)
endif
library    := $(rocksdb)/librocksdb.a
toolchain   = $(shell awk -F'"' '/^channel/ {print $$2}' rust-toolchain.toml)
nextest    := $(shell command -v cargo-nextest 2>/dev/null)

.PHONY: help deps setup build demo test check lint fmt clippy deny docs tidy artefact fuzz-smoke bench torture clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

deps: ## install what the build needs beside Rust: a C++ compiler, make, libclang
	@if command -v clang >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || [ -n "$${LIBCLANG_PATH:-}" ]; then have_clang=1; else have_clang=; fi; \
	if [ -z "$$have_clang" ] || ! command -v c++ >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq build-essential libclang-dev >/dev/null; \
	  else \
	    echo "morphkv needs a C++ compiler and libclang. Type: sudo apt-get install -y build-essential libclang-dev" >&2; exit 1; \
	  fi; \
	fi

$(library):
	@$(MAKE) --no-print-directory deps
	@echo "building RocksDB once into $(rocksdb) (about half an hour on two cores; later builds take seconds)"
	@mkdir -p $(rocksdb); \
	exec 9>$(rocksdb)/.building; flock 9; [ -s $(library) ] && exit 0; \
	work=$$(mktemp -d $(rocksdb)/.work.XXXXXX); trap 'rm -rf "$$work"' EXIT; \
	ROCKSDB_COMPILE=1 RUSTFLAGS="-Ctarget-cpu=$(cpu)" cargo build --locked --release --no-default-features -p librocksdb-sys --target-dir "$$work"; \
	cp "$$(find "$$work/release/build" -path '*librocksdb-sys-*/out/librocksdb.a' | head -n 1)" "$$work/librocksdb.a"; \
	sync "$$work/librocksdb.a"; mv "$$work/librocksdb.a" $(library)

# Untracked; it makes plain `cargo` link the same library, so that nothing compiles RocksDB a second time.
.cargo/config.toml: Makefile
	@mkdir -p .cargo; printf '[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\n' '$(rocksdb)' >.cargo/config.toml

setup: deps $(library) .cargo/config.toml

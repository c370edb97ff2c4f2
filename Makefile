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
target     := $(or $(CARGO_TARGET_DIR),target)
# One set of features for lint, test and tidy, so that they share what is compiled.
features   := --locked --features cli,traps
# What has a large size, or a place in the report.
torture    := --test crash --test media --test disk_calls --test mutants --test guarantees --test resume
FUZZ_SECONDS ?= 10

.PHONY: help deps setup build demo test check lint fmt clippy deny docs tidy artefact fuzz-smoke torture bench bench-conversion bench-log-backup bench-archive bench-report clean FORCE
.NOTPARALLEL:

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# libclang-cpp, which other packages bring along, is another library: it does not count.
deps: ## install what the build needs beside Rust: a C++ compiler and libclang
	@command -v cargo >/dev/null || { echo "morphkv needs Rust with cargo; see https://rustup.rs" >&2; exit 1; }; \
	have_clang=$${LIBCLANG_PATH:-}; \
	for folder in /usr/lib/*/ /usr/lib/llvm-*/lib/ /usr/lib64/ /usr/lib/; do \
	  if compgen -G "$$folder"'libclang.so*' >/dev/null || compgen -G "$$folder"'libclang-[0-9]*.so*' >/dev/null; then have_clang=1; fi; \
	done; \
	if [ -z "$$have_clang" ] || ! command -v c++ >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq build-essential libclang-dev >/dev/null; \
	  else \
	    echo "morphkv needs a C++ compiler and libclang. Type: sudo apt-get install -y build-essential libclang-dev" >&2; exit 1; \
	  fi; \
	fi

# `-p` of a dependency takes the features that this crate's own build asks of it, and refuses feature flags of its own.
# ROCKSDB_COMPILE wins over a ROCKSDB_LIB_DIR that .cargo/config.toml may already name.
$(library):
	@$(MAKE) --no-print-directory deps
	@echo "building RocksDB once into $(rocksdb) (about half an hour on two cores; later builds take seconds)"
	@mkdir -p $(rocksdb); \
	exec 9>$(rocksdb)/.building; flock 9; [ -s $(library) ] && exit 0; \
	work=$(rocksdb)/.work; rm -rf "$$work"; trap 'rm -rf "$$work"' EXIT; \
	ROCKSDB_COMPILE=1 RUSTFLAGS="-Ctarget-cpu=$(cpu)" cargo build --locked --release -p librocksdb-sys --target-dir "$$work"; \
	built=$$(find "$$work" -path '*librocksdb-sys-*/out/librocksdb.a' | head -n 1); \
	sync "$$built"; mv "$$built" $(library)

# Untracked; it makes plain `cargo` link the same library, so that nothing compiles RocksDB a second time.
.cargo/config.toml: FORCE
	@mkdir -p .cargo; \
	printf '[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\n' '$(rocksdb)' >.cargo/config.toml.new; \
	if cmp -s .cargo/config.toml.new .cargo/config.toml; then rm .cargo/config.toml.new; else mv .cargo/config.toml.new .cargo/config.toml; fi

setup: deps $(library) .cargo/config.toml ## what every other target needs first: the tools and RocksDB, built once

build: setup ## the release binary, target/release/morphkv
	cargo build --locked --release --features cli

demo: build ## the main job on the file paths of this machine, in under a minute
	$(target)/release/morphkv demo

# With nextest the documentation's examples, which it cannot run, come first: the summary of the tests is the last line.
test: setup ## all tests
	@if command -v cargo-nextest >/dev/null; then set -x; cargo test $(features) --doc; cargo nextest run $(features) --no-fail-fast; \
	else set -x; cargo test $(features) --no-fail-fast; fi

check: lint test artefact ## lint, test and artefact: what a change must pass

lint: fmt clippy deny docs tidy ## everything that judges the source without running it

fmt: setup ## formatting
	cargo fmt --check
	@if [ -f fuzz/Cargo.toml ]; then set -x; cargo fmt --check --manifest-path fuzz/Cargo.toml; fi

clippy: setup ## clippy, with warnings as errors, also for the library alone
	cargo clippy $(features) --all-targets -- -D warnings
	cargo clippy --locked --lib --examples -- -D warnings

deny: setup ## licences, sources and bans of the dependencies
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny (some minutes, once)"; cargo install cargo-deny --locked; }
	cargo fetch --locked
	cargo deny --offline check bans licenses sources

docs: setup ## the documentation, with warnings as errors
	RUSTDOCFLAGS='-D warnings' cargo doc $(features) --no-deps

tidy: setup ## the rules of the house, tests/tidy.rs
	cargo test $(features) --test tidy

# A search that finds nothing proves something only if the same search finds every name where traps are.
artefact: build ## the release binary holds no trap name, a test build holds them all
	cargo build $(features)
	@names=$$(grep -o 'morphkv-trap-[a-z0-9-]*[a-z0-9]' src/trap.rs | sort -u); \
	found() { grep -aoF "$$names" "$$1" | sort -u | wc -l; }; \
	armed=$$(found $(target)/debug/morphkv); released=$$(grep -ac 'morphkv-trap-' $(target)/release/morphkv || true); \
	echo "trap names: $$(wc -l <<<"$$names") in the source, $$armed in the test build, $$released in the release binary"; \
	[ "$$armed" -gt 0 ] && [ "$$armed" = "$$(wc -l <<<"$$names")" ] && [ "$$released" = 0 ]

# Without a sanitizer the stable compiler will do: our code has no `unsafe`, and RocksDB is linked as it is.
fuzz-smoke: setup ## every fuzz target for FUZZ_SECONDS (10) each
	@if [ ! -d fuzz/fuzz_targets ]; then echo "skipped: there are no fuzz targets"; \
	elif ! command -v cargo-fuzz >/dev/null; then echo "skipped: cargo-fuzz is missing (cargo install cargo-fuzz --locked)"; \
	else for target in $$(cargo fuzz list); do \
	  echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --features engine "$$target" -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1; \
	done; fi

# The report is drawn whatever became of the checks: it names what failed, and what did not run.
torture: setup ## every check of crash safety at its large size; draws target/torture/report.html
	@rm -f $(target)/torture/*.json; status=0; export MORPHKV_TORTURE=1; \
	if command -v cargo-nextest >/dev/null; then cargo nextest run $(features) --no-fail-fast $(torture) || status=$$?; \
	else cargo test $(features) --no-fail-fast $(torture) || status=$$?; fi; \
	cargo test $(features) --quiet --test report; echo "$(target)/torture/report.html"; exit $$status

bench: bench-conversion bench-log-backup bench-archive ## the benchmarks of benches/, on this machine, as ratios

# A part of it: make bench-conversion BENCH='--size small --only none,compaction --rounds 3'
bench-conversion: setup ## conversions against puts and compaction; target/bench/conversion.json
	cargo bench --locked --bench conversion -- $(BENCH)

bench-log-backup: setup ## what a log backup costs a writer, its lag, and a restore; target/bench/log-backup.json
	cargo bench --locked --features log-backup --bench log_backup -- $(BENCH)

bench-archive: setup ## an archive of a million segments in memory: plan, merge, truncate, fsck; target/torture/archive-scale.json
	MORPHKV_TORTURE=1 cargo test $(features) --test archive -- --nocapture scale::

bench-report: setup ## draws target/bench/report.html from what bench-conversion has measured
	cargo bench --locked --bench conversion -- --report

clean: ## remove what was built here; the cached RocksDB stays
	cargo clean
	rm -rf fuzz/target
	@echo "kept: $(rocksdb)"

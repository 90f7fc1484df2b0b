# make demo    fetch ONNX Runtime and the default model, build, and run the main job on shipped data
# make build   the build of the demo: less optimised than `cargo build --release`, and ready in a fraction of the time
# make test    everything that a change must pass: formatting, lints, tests, documentation
# make deny    licences, bans and advisories of the dependencies, where cargo-deny is installed
# make check-slow   what takes minutes and needs Chromium: reports of the shipped pipelines, opened in a browser; the Python
#              package, where FROSTBERT_PYTHON names a Python with what scripts/check-python needs
# make check-remote   extraction over a bucket of an object store (feature `remote`): against a store of our own that fails in
#              every way, and, where FROSTBERT_PYTHON names a Python with moto[server], against that of moto
# make wheel   the wheel for Linux on x86-64 with glibc 2.28 or newer, in target/wheels: the program and the Python package
# make setup   fetch ONNX Runtime and the default model alone (nothing is fetched twice)

.PHONY: demo test setup build check-slow check-remote deny wheel

demo:
	@echo "frostbert's demo, in three steps:"
	@echo "  1. fetch ONNX Runtime and the model all-MiniLM-L6-v2 (some 100 MB, once)"
	@echo "  2. compile frostbert (once; 5 to 15 minutes on two cores)"
	@echo "  3. learn 77 intents from 10,003 messages to a bank, and label new ones (a minute or two)"
	@$(MAKE) --no-print-directory build
	./target/release/frostbert run pipelines/banking77.toml
	./target/release/frostbert predict runs/banking77 data/bank_messages.txt

# Features other than the default ones: FEATURES="--no-default-features --features cli,hub" leaves the server out.
FEATURES =

build: setup
	cargo build --release --locked --config scripts/quick-build.toml $(FEATURES)

test: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --lib -- -D warnings
	cargo test --locked --workspace
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

REPORTED = sentiment topics entities questions pairs pairs_regression sweep layers two_tasks banking77

check-slow: build
	rm -rf target/reports
	for name in $(REPORTED); do \
		./target/release/frostbert run pipelines/$$name.toml --quiet --set run.dir=target/reports > target/report.log || exit 1; \
	done
	scripts/check-report $$(find target/reports -name report.html)
	@if [ -n "$$FROSTBERT_PYTHON" ]; then "$$FROSTBERT_PYTHON" scripts/check-python; \
	else echo "skipped: FROSTBERT_PYTHON names no Python to check the package with"; fi

check-remote: setup
	cargo clippy --locked --workspace --all-targets --features remote -- -D warnings
	cargo test --locked --features remote --lib distributed::
	cargo test --locked --features remote --test it remote::
	@if [ -n "$$FROSTBERT_PYTHON" ]; then \
		$(MAKE) --no-print-directory build FEATURES="--features remote" && \
		"$$FROSTBERT_PYTHON" scripts/check-remote target/release/frostbert; \
	else echo "skipped: FROSTBERT_PYTHON names no Python with moto[server]"; fi

# Zig links against the symbols of an older glibc than this machine's, and brings its own C compiler for what is C.
# An absolute path, because build scripts call the compiler in folders of their own.
WHEEL_TOOLS = $(CURDIR)/target/wheel-tools

wheel:
	test -x $(WHEEL_TOOLS)/bin/maturin || python3 -m pip install --quiet --root-user-action=ignore \
		--target $(WHEEL_TOOLS) maturin==1.16.0 ziglang==0.17.1
	PYTHONPATH=$(WHEEL_TOOLS) $(WHEEL_TOOLS)/bin/maturin build --release --locked --zig --compatibility manylinux_2_28 \
		--out target/wheels

deny:
	scripts/deny

setup:
	sh scripts/setup.sh

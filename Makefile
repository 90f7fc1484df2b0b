# make demo    build in release, fetch ONNX Runtime and the default model, and run the main job on shipped data
# make test    everything that a change must pass: formatting, lints, tests, documentation
# make setup   fetch ONNX Runtime and the default model alone (nothing is fetched twice)

.PHONY: demo test setup build

demo: build
	./target/release/frostbert run pipelines/sentiment.toml
	./target/release/frostbert predict runs/sentiment data/held_out.txt

build: setup
	cargo build --release --locked

test: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --lib -- -D warnings
	cargo test --locked --workspace
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

setup:
	sh scripts/setup.sh

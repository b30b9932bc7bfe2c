# The commands that people need. `just` lists them; each is a line of shell, so they can be typed without just, too.

set positional-arguments

# List the commands.
default:
    @just --list --unsorted

# Compile everything, optimised: target/release/idunno and idunnod.
build:
    cargo build --locked --release

# Run all tests, Rust and Python. The set-up of the Python environment is included.
test:
    ./scripts/test.sh

# Run the tests whose names contain NAME: `just test-one a_suspicion_of_the_dead`.
test-one NAME *ARGS:
    cargo test --locked --workspace "$@"

# Check everything that CI checks before the tests: format, clippy, Python, shell, spelling, licences.
lint:
    ./scripts/lint.sh

# Format Rust and Python.
fmt: dev
    cargo fmt --all
    .venv/bin/ruff format python_model_server
    .venv/bin/ruff format --config scripts/ruff.toml scripts tests/vms

# Seven members on this machine, 1,000 photos, two models, three members killed: `just demo --keep`.
demo *ARGS:
    ./scripts/demo.sh "$@"

# Measure: `just bench`, `just bench ray`, `just bench --only store`.
bench *ARGS:
    ./scripts/bench.sh "$@"

# Break a cluster at random and judge what clients saw: `just chaos --seed 7 --minutes 1`.
chaos *ARGS:
    ./scripts/chaos.sh "$@"

# Build the API documentation of all crates, private items included, and open it.
docs:
    cargo doc --locked --workspace --no-deps --document-private-items --open

# Capture the console's pages in docs/console, and the picture in README.md, from a real run.
screens *ARGS:
    ./scripts/console_screens.sh "$@"

# Make the environments of the tools (.venv, .venv-dev).
dev:
    ./scripts/setup_python.sh
    ./scripts/setup_dev.sh

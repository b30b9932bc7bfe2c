#!/usr/bin/env bash
# Fuzzes everything that decodes bytes from outside, guided by coverage (libFuzzer; fuzz_targets/).
#
#   scripts/fuzz.sh [--seconds N] [--all] [TARGET...]
#
#   --seconds N   how long each target runs (10); 0 only runs the corpus
#   --all         also the targets that need the whole daemon, which takes minutes to build
#   TARGET        only these: the names of fuzz_targets/*.rs
#
# The corpus of a target is fuzz_targets/corpus/TARGET. What a run adds to it is kept in target/fuzz/corpus, and what
# fails in target/fuzz/failures: `scripts/fuzz.sh --seconds 0 TARGET FILE` runs one file. Needs a C++ compiler; it is
# skipped where there is none. `cargo fuzz --fuzz-dir fuzz_targets` works as well.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=10 features=() wanted=() files=()
while (($#)); do
    case "$1" in
        --seconds) seconds="$2" && shift ;;
        --all) features=(--features daemon) ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
        -*) echo "fuzz.sh: unknown option $1; see --help" >&2 && exit 2 ;;
        *) if [[ -f "$1" ]]; then files+=("$PWD/$1"); else wanted+=("$1"); fi ;;
    esac
    shift
done
if ! command -v c++ >/dev/null; then
    echo "fuzz.sh: skipped, there is no C++ compiler"
    exit 0
fi

for target in "${wanted[@]}"; do
    if [[ ! -f "fuzz_targets/$target.rs" ]]; then
        echo "fuzz.sh: there is no target $target: see fuzz_targets/" >&2
        exit 2
    fi
done

# What cargo-fuzz sets, but for its sanitizer: our crates have no unsafe code, and stable compilers have no sanitizers.
coverage=(-sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table
    -sanitizer-coverage-trace-compares)
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 ${coverage[*]/#/-Cllvm-args=}"
out="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
# A target given, so that build scripts and macros are built without coverage.
host="$(rustc --print host-tuple)"
env -u RUSTC_WORKSPACE_WRAPPER cargo build --quiet --locked --manifest-path fuzz_targets/Cargo.toml --target-dir "$out" --target "$host" \
    "${features[@]}"

mapfile -t of_daemon < <(grep -B2 '^required-features' fuzz_targets/Cargo.toml | sed -n 's/^name = "\(.*\)"/\1/p')
failed=()
for source in fuzz_targets/*.rs; do
    target="$(basename "$source" .rs)"
    program="$out/$host/debug/$target"
    if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $target "* ]]; then continue; fi
    # An older build may have left the program of a target that this one leaves out.
    if ((${#features[@]} == 0)) && [[ " ${of_daemon[*]} " == *" $target "* ]]; then
        if ((${#wanted[@]})); then
            echo "fuzz.sh: $target needs the whole daemon: add --all" >&2
            exit 2
        fi
        echo "fuzz.sh: $target: left out, see --all"
        continue
    fi
    if ((${#files[@]})); then
        "$program" "${files[@]}" || failed+=("$target")
        continue
    fi
    mkdir -p "$out/corpus/$target" "$out/failures"
    limits=(-timeout=10 -rss_limit_mb=1024 -max_len=65536 -artifact_prefix="$out/failures/$target-")
    if ((seconds)); then limits+=(-max_total_time="$seconds"); else limits+=(-runs=0); fi
    log="$out/$target.log"
    if "$program" "${limits[@]}" "$out/corpus/$target" "fuzz_targets/corpus/$target" >"$log" 2>&1; then
        echo "fuzz.sh: $target: ok, $(find "$out/corpus/$target" "fuzz_targets/corpus/$target" -type f | wc -l) inputs"
    else
        tail -n 20 "$log" >&2
        failed+=("$target")
    fi
done
if ((${#failed[@]})); then
    echo "fuzz.sh: failed: ${failed[*]}" >&2
    exit 1
fi
echo "fuzz.sh: all targets passed"

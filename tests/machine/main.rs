//! Measures what this machine can do at most: the limits beside which `scripts/bench.py` puts its figures.
//!
//! Each rate is that of all cores at once, which is less than one core's times their number where cores share caches or memory.
//! Nothing is measured through IDunno's own code; the libraries of ciphers and hashes are those that it uses.
//!
//! Prints one JSON object. Rates of bytes are in MB/s (10^6), and end in `mb_s`.

mod disk;
mod network;

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use clap::Parser;
use serde_json::json;

const MEASURED: Duration = Duration::from_secs(1);
/// The largest record of TLS.
const RECORD_BYTES: usize = 16 << 10;
const BLOCK_BYTES: usize = 1 << 20;

#[derive(Parser)]
#[command(name = "machine")]
struct Arguments {
    /// A folder on the disk to measure: files made in it are left there
    #[arg(long)]
    scratch: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let scratch = Arguments::parse().scratch;
    let cores = thread::available_parallelism()?.get();
    let files = disk::create_files(&scratch, cores).context("cannot make files")?;
    let large = disk::large_files(&scratch, cores).context("cannot write and read large files")?;
    let found = json!({
        "cores": cores,
        "aes_gcm_mb_s": mb_s(&on_all_cores(cores, encrypt)),
        "blake3_mb_s": mb_s(&on_all_cores(cores, hash)),
        "loopback_mb_s": network::loopback_mb_s(cores).context("cannot send over loopback")?,
        "round_trip_ms": network::round_trip_ms().context("cannot send over loopback")?,
        "disk_write_mb_s": large.write,
        "disk_read_mb_s": large.read,
        "disk_copy_mb_s": large.copy,
        "cached_write_mb_s": large.cached_write,
        "flush_ms": disk::flush_ms(&scratch).context("cannot flush a file")?,
        "files_created_s": files.created_s,
        "files_durable_s": files.durable_s,
    });
    println!("{found}");
    Ok(())
}

/// What one thread did.
struct Work {
    bytes: u64,
    took: Duration,
}

/// Runs the same work on every core, all from one moment on.
fn on_all_cores(cores: usize, work: fn() -> Work) -> Vec<Work> {
    let start = Arc::new(Barrier::new(cores));
    let run = |start: Arc<Barrier>| {
        thread::spawn(move || {
            start.wait();
            work()
        })
    };
    let threads: Vec<_> = (0..cores).map(|_| run(Arc::clone(&start))).collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
}

/// All threads' bytes a second.
fn mb_s(work: &[Work]) -> f64 {
    let rate: f64 = work.iter().map(|work| work.bytes as f64 / work.took.as_secs_f64()).sum();
    tenths(rate / 1e6)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Repeats a step that handles so many bytes, for a second.
fn repeat(bytes: usize, mut step: impl FnMut()) -> Work {
    let started = Instant::now();
    let mut steps = 0;
    while started.elapsed() < MEASURED {
        step();
        steps += 1;
    }
    Work { bytes: steps * bytes as u64, took: started.elapsed() }
}

fn encrypt() -> Work {
    // Neither the key nor the nonce protects anything.
    let Ok(key) = UnboundKey::new(&AES_256_GCM, &[7; 32]).map(LessSafeKey::new) else {
        return Work { bytes: 0, took: MEASURED };
    };
    let mut record = vec![1; RECORD_BYTES];
    repeat(RECORD_BYTES, || {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut record));
    })
}

fn hash() -> Work {
    let block = vec![1; BLOCK_BYTES];
    let mut hasher = blake3::Hasher::new();
    let work = repeat(BLOCK_BYTES, || {
        hasher.update(black_box(&block));
    });
    black_box(hasher.finalize());
    work
}

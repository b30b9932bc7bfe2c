//! Loopback: what the kernel copies through sockets, and one round trip.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use crate::{Work, mb_s, repeat};

const WRITE_BYTES: usize = 256 << 10;
const ROUND_TRIPS: usize = 2_000;

fn connection() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = TcpStream::connect(listener.local_addr()?)?;
    let (from, _) = listener.accept()?;
    to.set_nodelay(true)?;
    from.set_nodelay(true)?;
    Ok((to, from))
}

/// As many connections as cores, with a thread at each end: both ends' work is in it.
pub(crate) fn loopback_mb_s(cores: usize) -> std::io::Result<f64> {
    let mut senders = Vec::new();
    for _ in 0..cores {
        let (mut to, mut from) = connection()?;
        thread::spawn(move || {
            let mut buffer = vec![0; WRITE_BYTES];
            while from.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        senders.push(thread::spawn(move || {
            let block = vec![1; WRITE_BYTES];
            // A connection that breaks makes the figure worse, not better.
            repeat(WRITE_BYTES, || drop(to.write_all(&block)))
        }));
    }
    let work: Vec<Work> = senders.into_iter().filter_map(|sender| sender.join().ok()).collect();
    Ok(mb_s(&work))
}

/// The median of one byte there and one back.
pub(crate) fn round_trip_ms() -> std::io::Result<f64> {
    let (mut here, mut there) = connection()?;
    thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
    });
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        let mut byte = [1];
        here.write_all(&byte)?;
        here.read_exact(&mut byte)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let median_ms = times[ROUND_TRIPS / 2].as_secs_f64() * 1e3;
    Ok((median_ms * 1e4).round() / 1e4)
}

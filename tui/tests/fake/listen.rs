//! A listener on this machine for as long as a test runs.

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Listens on a thread of its own, and serves each connection. Returns the address, which `serve` is told, too.
pub(crate) fn listen<S: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream, SocketAddr) -> S + Send + 'static,
) -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            sender.send(address).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, address));
            }
        });
    });
    address.recv().unwrap()
}

//! Notices that this machine has got another address while the member runs, as a lease of DHCP that was not renewed.
//!
//! The proof is local: the address that others use was one of an interface, and no longer is. The new one is the source
//! address of packets to other members; these dial it before they believe it. An address that never was an interface's is
//! behind address translation, and is left alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use idunno_core::membership::SwimEvent;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use super::{Input, MembershipView};
use crate::runtime::interfaces;

/// How often the address is looked for.
const PERIOD: Duration = Duration::from_secs(2);
/// Members towards which the source address is looked up; all must agree.
const PEERS_ASKED: usize = 3;

/// What a look at the interfaces finds.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    InPlace,
    /// It is gone, and packets to other members come from here now.
    Moved(SocketAddr),
    /// It is gone, and no other is known.
    Gone,
}

/// Judges the advertised address. `sources` are the source addresses towards other members.
fn judge(advertised: SocketAddr, is_own: impl Fn(IpAddr) -> bool, sources: &[IpAddr]) -> Finding {
    if is_own(advertised.ip()) {
        return Finding::InPlace;
    }
    match sources {
        [first, rest @ ..] if rest.iter().all(|other| other == first) && *first != advertised.ip() => {
            Finding::Moved(SocketAddr::new(*first, advertised.port()))
        }
        _ => Finding::Gone,
    }
}

/// Watches until the process ends.
pub(super) async fn watch(
    listen: SocketAddr,
    view: watch::Receiver<Arc<MembershipView>>,
    inputs: mpsc::Sender<Input>,
) {
    let advertised = |view: &MembershipView| view.address(view.me);
    let started_at = advertised(&view.borrow());
    if !started_at.is_some_and(|address| !address.ip().is_loopback() && interfaces::is_own(address.ip())) {
        return std::future::pending().await;
    }
    let mut logged = None;
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = Arc::clone(&view.borrow());
        let Some(old) = advertised(&now) else { continue };
        let peers = now.live().filter(|&id| id != now.me).filter_map(|id| now.address(id));
        let sources: Vec<IpAddr> = peers.take(PEERS_ASKED).filter_map(interfaces::source_towards).collect();
        let finding = judge(old, interfaces::is_own, &sources);
        match &finding {
            Finding::InPlace => {}
            Finding::Moved(_) | Finding::Gone if !listen.ip().is_unspecified() => {
                if logged.as_ref() != Some(&finding) {
                    error!(
                        %listen,
                        "no interface has the address any more on which this member listens: change 'listen' and 'advertise' \
                         and restart it"
                    );
                }
            }
            Finding::Moved(new) => {
                warn!(
                    %old, %new,
                    "this machine's address has changed: announcing the new one. Change 'advertise', or the next start \
                     announces the old one again"
                );
                // The task ends only with the process.
                let _ = inputs.send(Input::Event(SwimEvent::Moved { address: *new })).await;
            }
            Finding::Gone => {
                if logged.as_ref() != Some(&finding) {
                    warn!(%old, "no interface has this member's address any more, and no other is known to replace it");
                }
            }
        }
        logged = Some(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_interface_has_any_more_is_replaced_by_the_source_address() {
        let old: SocketAddr = "10.0.0.2:7401".parse().unwrap();
        let (new, third): (IpAddr, IpAddr) = ("10.0.0.9".parse().unwrap(), "10.0.1.9".parse().unwrap());
        let gone = |ip: IpAddr| ip != old.ip();
        assert_eq!(judge(old, |_| true, &[new]), Finding::InPlace, "a second address changes nothing");
        assert_eq!(judge(old, gone, &[new, new]), Finding::Moved(SocketAddr::new(new, 7401)));
        assert_eq!(judge(old, gone, &[new, third]), Finding::Gone, "others see different addresses");
        assert_eq!(judge(old, gone, &[]), Finding::Gone);
        assert_eq!(judge(old, gone, &[old.ip()]), Finding::Gone);
    }
}

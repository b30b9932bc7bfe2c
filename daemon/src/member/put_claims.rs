//! What a member believes of a put: its term, and the members that it is to be forwarded to.

use std::sync::Arc;
use std::time::Duration;

use idunno_consensus::Leadership;
use idunno_shared::client::link::BoxFuture;
use idunno_shared::ids::Term;
use idunno_shared::wire::blobs::Holder;
use idunno_store::server::ClusterKnowledge;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::membership::MembershipView;

/// How long the news of a term may take: a client can learn of a new coordinator before this member does.
const NEWS_MAX: Duration = Duration::from_secs(3);

pub(super) struct PutClaims {
    pub(super) members: watch::Receiver<Arc<MembershipView>>,
    pub(super) leadership: watch::Receiver<Leadership>,
}

impl ClusterKnowledge for PutClaims {
    fn has(&self, holder: Holder) -> bool {
        let view = self.members.borrow();
        view.members.get(&holder.node).is_some_and(|member| member.record.address == holder.address)
    }

    fn has_begun(&self, term: Term) -> BoxFuture<'_, bool> {
        if term <= self.leadership.borrow().term {
            return Box::pin(std::future::ready(true));
        }
        let mut leadership = self.leadership.clone();
        Box::pin(async move {
            let known = leadership.wait_for(|known| term <= known.term);
            matches!(timeout(NEWS_MAX, known).await, Ok(Ok(_)))
        })
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::NodeId;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_news_of_a_term_is_waited_for_and_one_that_never_comes_is_not_believed() {
        let view = MembershipView { me: NodeId(1), members: [].into(), joined: true };
        let (_members, members) = watch::channel(Arc::new(view));
        let (news, leadership) = watch::channel(Leadership { term: Term(3), ..Leadership::default() });
        let claims = PutClaims { members, leadership };
        assert!(claims.has_begun(Term(2)).await && claims.has_begun(Term(3)).await);
        let later = async {
            tokio::time::sleep(NEWS_MAX / 2).await;
            news.send_modify(|known| known.term = Term(4));
        };
        assert!(tokio::join!(claims.has_begun(Term(4)), later).0);
        assert!(!claims.has_begun(Term(u64::MAX)).await);
        let stranger = Holder { node: NodeId(2), address: "127.0.0.1:22".parse().unwrap() };
        assert!(!claims.has(stranger));
    }
}

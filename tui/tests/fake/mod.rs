//! A cluster of one member, `m1`, that answers as a test says; and the program, run on it.

mod listen;

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;

use idunno_shared::client::frames::{read_frame, write_frame, write_greeting};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{ControlRequest, Liveness, LogRole, MemberView};
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply, Reply, Request};
use idunno_shared::wire::version::SPOKEN;
use tokio::net::TcpStream;

use self::listen::listen;

type Answering = Arc<dyn Fn(ControlRequest, &MemberView) -> Reply + Send + Sync>;

/// Runs the program.
pub(crate) fn idunno(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
    command.args(arguments).env_remove("IDUNNO_CLUSTER").output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn serve(mut stream: TcpStream, member: MemberView, answer: Answering) {
    let Ok(_) = read_frame::<Hello, _>(&mut stream).await else { return };
    let welcome = HelloReply::Welcome { node: Some(member.id), version: SPOKEN.newest };
    write_greeting(&mut stream, &welcome).await.unwrap();
    while let Ok(Call { id, request }) = read_frame(&mut stream).await {
        let reply = match request {
            Request::Control(request) => answer(request, &member),
            other => panic!("{other:?}"),
        };
        write_frame(&mut stream, &Answer { id, more: false, reply }).await.unwrap();
    }
}

/// Starts a fake cluster on threads of its own; it ends with the test.
pub(crate) fn cluster(
    answer: impl Fn(ControlRequest, &MemberView) -> Reply + Send + Sync + 'static,
) -> SocketAddr {
    let answer: Answering = Arc::new(answer);
    listen(move |stream, address| {
        let member = MemberView {
            id: NodeId(7),
            name: "m1".parse().unwrap(),
            address,
            generation: 1,
            incarnation: 0,
            liveness: Liveness::Alive,
            udp_blocked: false,
            since_ms: 1_700_000_000_000,
            doubts: None,
            role: LogRole::Coordinator,
        };
        serve(stream, member, Arc::clone(&answer))
    })
}

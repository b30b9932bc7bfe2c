//! What one peer may use up: connections, requests, memory and tasks.

use super::*;

#[tokio::test]
async fn clients_cannot_keep_members_out() {
    let stop = CancellationToken::new();
    let limits = Limits { greetings: 8, clients: 2, members: 2, ..Limits::default() };
    let (address, _serving) = limited_server(&stop, limits).await;
    let (client, member) = (
        TcpConnector::new(Credentials::insecure()),
        MemberConnector::new(NodeId(1), Credentials::insecure()),
    );
    let mut clients = Vec::new();
    for _ in 0..limits.clients {
        clients.push(client.dial(address, Purpose::Calls).await.unwrap());
    }
    let refused = client.dial(address, Purpose::Calls).await;
    assert!(matches!(&refused, Err(DialError::Rejected { reason, .. }) if reason.contains("clients")));
    member.dial(address, Purpose::Calls).await.unwrap();
    // One that ends makes room.
    clients.pop();
    let again = async {
        while client.dial(address, Purpose::Calls).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), again).await.unwrap();
    stop.cancel();
}

#[tokio::test]
async fn an_identity_locks_neither_others_nor_members_out() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let (stop, secret) = (CancellationToken::new(), Secret::generate().unwrap());
    let person = |name: &str| {
        let grant = Grant { name: name.parse().unwrap(), role: Role::Operator, prefixes: Vec::new() };
        Credentials::of(&secret.mint_lasting(&grant, DAY).unwrap()).unwrap()
    };
    // Two certificates of one subject are one identity.
    let (anna, again, bert) = (person("anna"), person("anna"), person("bert"));
    let members = Credentials::of(&secret.mint(Role::Member, DAY).unwrap()).unwrap();
    let limits = Limits { identity_connections: 2, identity_requests: 3, ..Limits::default() };
    let (address, _serving) = server_of(&members, &stop, limits).await;
    let open = async |credentials: &Credentials| {
        TcpConnector::new(credentials.clone()).dial(address, Purpose::Calls).await.map(Connection::new)
    };
    let (one, other) = (open(&anna).await.unwrap(), open(&again).await.unwrap());
    match open(&anna).await.err() {
        Some(DialError::Rejected { reason, .. }) => {
            assert!(reason.contains("operator anna has 2 connections"), "{reason}");
        }
        refused => panic!("{refused:?}"),
    }
    let berts = open(&bert).await.unwrap();
    let member = MemberConnector::new(NodeId(1), members.clone());
    let mut of_members = Vec::new();
    for _ in 0..10 {
        of_members.push(Connection::new(member.dial(address, Purpose::Calls).await.unwrap()));
    }

    let limit = Duration::from_secs(30);
    let hold = |connection: &Connection| {
        let connection = connection.clone();
        tokio::spawn(async move {
            loop {
                // Repeated if a concurrent request took the last permit.
                match connection.call(Request::Control(ControlRequest::Join), limit).await {
                    Ok(Reply::Refused(_)) => {}
                    ended => return ended,
                }
            }
        })
    };
    let ask = async |connection: &Connection| match connection
        .call(Request::Control(ControlRequest::Leave), limit)
        .await
        .unwrap()
    {
        Reply::Refused(refusal) => Some(refusal),
        _ => None,
    };
    let held = [hold(&one), hold(&one), hold(&other)];
    let of_members_held: Vec<_> = of_members.iter().chain(&of_members).map(hold).collect();
    let refused = async {
        loop {
            if let Some(refusal) = ask(&one).await {
                return refusal;
            }
        }
    };
    let refusal = timeout(limit, refused).await.unwrap();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.message.contains("operator anna"), "{}", refusal.message);
    assert!(ask(&other).await.is_some(), "the limit is the identity's, not the connection's");
    assert_eq!((ask(&berts).await, ask(&of_members[0]).await), (None, None));
    // A connection that ends returns its permits.
    held.iter().for_each(tokio::task::JoinHandle::abort);
    drop(one);
    let freed = async { while ask(&other).await.is_some() {} };
    timeout(limit, freed).await.unwrap();
    drop(of_members_held);
    stop.cancel();
}

/// Connects from another loopback address, and says nothing.
async fn silent(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn is_welcome(stream: &mut TcpStream) -> bool {
    let hello = Hello::new(Purpose::Calls, None);
    write_greeting(stream, &hello).await.is_ok()
        && matches!(read_frame(stream).await, Ok(HelloReply::Welcome { .. }))
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let stop = CancellationToken::new();
    let limits = Limits { greetings: 16, ..Limits::default() };
    let (address, _serving) = limited_server(&stop, limits).await;
    let mut flood = Vec::new();
    for number in 0..400_u32 {
        flood.push(silent(IpAddr::from([127, 0, 1, u8::try_from(number % 50).unwrap()]), address).await);
    }
    // Turns would be free only after many times HELLO_TIMEOUT.
    let all = async {
        TcpConnector::new(Credentials::insecure()).dial(address, Purpose::Calls).await.unwrap();
        MemberConnector::new(NodeId(1), Credentials::insecure()).dial(address, Purpose::Calls).await.unwrap();
    };
    timeout(HELLO_TIMEOUT, all).await.expect("silent connections are in the way");
    stop.cancel();
}

#[tokio::test]
async fn a_flood_takes_neither_the_place_of_a_known_member_nor_of_another_address() {
    let stop = CancellationToken::new();
    let limits = Limits { greetings: 16, ..Limits::default() };
    let (address, _serving) = limited_server(&stop, limits).await;
    let everyone_so_far = async || {
        let mut last = silent(IpAddr::from([127, 0, 2, 1]), address).await;
        assert!(is_welcome(&mut last).await, "connections are accepted in order");
    };
    // Slow, not malicious: the hello comes late.
    let mut slow = silent(IpAddr::from([127, 0, 3, 1]), address).await;
    let mut member = silent(KNOWN, address).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(silent(IpAddr::from([127, 0, 1, 1]), address).await);
    }
    everyone_so_far().await;
    assert!(is_welcome(&mut slow).await, "one address pushes another out");
    for number in 0..100 {
        flood.push(silent(IpAddr::from([127, 0, 1, number]), address).await);
    }
    everyone_so_far().await;
    assert!(is_welcome(&mut member).await, "strangers push a known member out");
    stop.cancel();
}

/// A connection of one role before its first call.
async fn raw(credentials: &Credentials, address: SocketAddr) -> Link {
    TcpConnector::new(credentials.clone()).dial(address, Purpose::Calls).await.unwrap()
}

async fn announce(link: &mut Link, bytes: usize) {
    link.writer.write_all(&u32::try_from(bytes).unwrap().to_be_bytes()).await.unwrap();
    link.writer.flush().await.unwrap();
}

#[tokio::test]
async fn a_request_is_no_larger_than_its_role_may_send() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let (stop, secret) = (CancellationToken::new(), Secret::generate().unwrap());
    let members = Credentials::of(&secret.mint(Role::Member, DAY).unwrap()).unwrap();
    let (address, _serving) = server_of(&members, &stop, Limits::default()).await;
    for role in Role::ISSUED {
        let person = Credentials::of(&secret.mint(role, DAY).unwrap()).unwrap();
        let mut link = raw(&person, address).await;
        announce(&mut link, roles::request_bytes_max(role) + 1).await;
        let ended = timeout(HELLO_TIMEOUT, link.reader.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{role}: the body is awaited");
        // The largest allowed is read, and refused for what it is.
        let mut link = raw(&person, address).await;
        announce(&mut link, roles::request_bytes_max(role)).await;
        let mut body = vec![0xc0; roles::request_bytes_max(role)];
        body[..3].copy_from_slice(&[0x92, 7, 0xdd]);
        link.writer.write_all(&body).await.unwrap();
        link.writer.flush().await.unwrap();
        let ended = timeout(Duration::from_secs(30), link.reader.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{role}: it is no call");
    }
    assert!(roles::request_bytes_max(Role::Viewer) < roles::request_bytes_max(Role::Operator));
    assert_eq!(roles::request_bytes_max(Role::Member), FRAME_BYTES_MAX);
    stop.cancel();
}

#[tokio::test]
async fn announced_requests_occupy_their_own_identitys_memory_only() {
    let (stop, memory) = (CancellationToken::new(), MemoryLimits { identity: 1 << 20, clients: 8 << 20 });
    let limits = Limits { request_memory: memory, ..Limits::default() };
    let (address, _serving) = limited_server(&stop, limits).await;
    // Without TLS, an identity is an address.
    let greet = async |from: IpAddr| {
        let mut stream = silent(from, address).await;
        assert!(is_welcome(&mut stream).await);
        let (reader, writer) = stream.into_split();
        Link { reader: Box::new(reader), writer: Box::new(writer), node: None }
    };
    let [anna, bert] = [[127, 0, 0, 11], [127, 0, 0, 12]].map(IpAddr::from);
    let mut held = greet(anna).await;
    announce(&mut held, 1 << 20).await;
    held.writer.write_all(&[0x92]).await.unwrap();
    let (waits, other) = (Connection::new(greet(anna).await), Connection::new(greet(bert).await));
    let ask = async |connection: &Connection| {
        connection.call(Request::Control(ControlRequest::Leave), Duration::from_secs(30)).await
    };
    let waiting = {
        let waits = waits.clone();
        tokio::spawn(async move {
            waits.call(Request::Control(ControlRequest::Leave), Duration::from_secs(30)).await
        })
    };
    for _ in 0..20 {
        assert!(matches!(ask(&other).await, Ok(Reply::Control(_))));
    }
    assert!(!waiting.is_finished(), "the announced bytes are not counted");
    drop(held);
    assert!(
        matches!(waiting.await.unwrap(), Ok(Reply::Control(_))),
        "a connection that ends returns its memory"
    );
    stop.cancel();
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_by_bytes() {
    const CALLS: u64 = 200;
    let (stop, memory) = (CancellationToken::new(), MemoryLimits { identity: 4 << 20, clients: 8 << 20 });
    let limits = Limits { answer_memory: memory, ..Limits::default() };
    let (address, _serving) = limited_server(&stop, limits).await;
    let mut link = raw(&Credentials::insecure(), address).await;
    let mut calls = Vec::new();
    for id in 0..CALLS {
        encode_frame(&Call { id, request: Request::Control(ControlRequest::Models) }, &mut calls).unwrap();
    }
    link.writer.write_all(&calls).await.unwrap();
    link.writer.flush().await.unwrap();
    // A later call of another connection proves that the server has had its time.
    let other = Connection::new(
        MemberConnector::new(NodeId(1), Credentials::insecure()).dial(address, Purpose::Calls).await.unwrap(),
    );
    let limit = Duration::from_secs(30);
    for _ in 0..CALLS {
        other.call(Request::Control(ControlRequest::Leave), limit).await.unwrap();
    }
    let (mut whole, mut busy) = (0, 0);
    for _ in 0..CALLS {
        let answer: Answer = timeout(limit, read_frame(&mut link.reader)).await.unwrap().unwrap();
        match answer.reply {
            Reply::Control(_) => whole += 1,
            Reply::Refused(refusal) => {
                assert_eq!(refusal.code, RefusalCode::Busy);
                busy += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        whole > 0 && busy > CALLS / 2,
        "{whole} answers were kept for a peer that reads none, {busy} not"
    );
    // What was read makes room.
    let mut call = Vec::new();
    encode_frame(&Call { id: CALLS, request: Request::Control(ControlRequest::Models) }, &mut call).unwrap();
    link.writer.write_all(&call).await.unwrap();
    link.writer.flush().await.unwrap();
    let answer: Answer = timeout(limit, read_frame(&mut link.reader)).await.unwrap().unwrap();
    assert!(matches!(answer.reply, Reply::Control(_)));
    stop.cancel();
}

#[tokio::test]
async fn refused_requests_that_nobody_reads_cost_no_tasks() {
    const HELD: u64 = 3;
    let stop = CancellationToken::new();
    let limits = Limits { identity_requests: 3, ..Limits::default() };
    let (address, _serving) = limited_server(&stop, limits).await;
    let mut link = raw(&Credentials::insecure(), address).await;
    let mut calls = Vec::new();
    for id in 0..HELD {
        encode_frame(&Call { id, request: Request::Control(ControlRequest::Join) }, &mut calls).unwrap();
    }
    // Refused, because those three are in progress until the test ends: more than fit between two that do not read.
    for id in HELD..1_000 {
        encode_frame(&Call { id, request: Request::Control(ControlRequest::Leave) }, &mut calls).unwrap();
    }
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let flood = async {
        loop {
            link.writer.write_all(&calls).await.unwrap();
            link.writer.flush().await.unwrap();
        }
    };
    // It ends only by standing still: nothing further is read.
    let _ = timeout(Duration::from_secs(5), flood).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= before + 10, "{} tasks for {HELD} requests", tasks.saturating_sub(before));
    stop.cancel();
}

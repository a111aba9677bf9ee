//! A TCP relay between clients and a server. It can reset its connections.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A relay with its own address. Dropping it resets open connections.
pub struct Relay {
    pub addr: SocketAddr,
    server: watch::Sender<SocketAddr>,
    /// Number of resets.
    resets: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let addr = listener.local_addr().expect("bound");
        let (resets, server) = (watch::Sender::new(0), watch::Sender::new(server));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server.subscribe(), resets.subscribe()));
        Self { addr, server, resets, _tasks: tasks }
    }

    /// Sends new connections to another server.
    pub fn switch(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// Resets every open connection (RST, to both sides). New connections are accepted.
    pub fn reset_all(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

async fn accept(
    listener: TcpListener,
    server: watch::Receiver<SocketAddr>,
    resets: watch::Receiver<usize>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("there are files left");
        let server = *server.borrow();
        connections.spawn(relay(client, server, resets.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, mut resets: watch::Receiver<usize>) {
    // An unreachable server: the client sees its connection end.
    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
    resets.mark_unchanged();
    tokio::select! {
        // The clients handle their own errors.
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        _ = resets.changed() => {
            for socket in [&client, &upstream] {
                socket.set_zero_linger().expect("a TCP socket");
            }
        }
    }
}

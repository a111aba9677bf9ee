//! A TCP relay between clients and a server, which can break what goes through it.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Relays from its own address. Dropping it resets what is open.
pub struct Relay {
    pub addr: SocketAddr,
    /// How often all was reset.
    resets: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let addr = listener.local_addr().expect("bound");
        let resets = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, resets.subscribe()));
        Self { addr, resets, _tasks: tasks }
    }

    /// Resets every connection that is open now (RST, to both sides); new ones are taken.
    pub fn reset_all(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, resets: watch::Receiver<usize>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("there are files left");
        connections.spawn(relay(client, server, resets.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, mut resets: watch::Receiver<usize>) {
    // A server that is gone is a connection that ends.
    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
    resets.mark_unchanged();
    tokio::select! {
        // How a side ended is the clients' business.
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        _ = resets.changed() => {
            for socket in [&client, &upstream] {
                socket.set_zero_linger().expect("a TCP socket");
            }
        }
    }
}

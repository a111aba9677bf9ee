//! A TCP proxy in front of Redis that holds, delays or resets connections, all of them or
//! only those of one kind.

mod connection;
mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use self::connection::Connection;

/// What happens to what goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Nothing goes through, in either direction, and nothing is lost.
    Stall,
    /// What is open is reset, as is what comes.
    Cut,
    /// Bytes take so long in each direction, and keep their order.
    Delay(Duration),
}

/// What a connection is for, which the bridge says by the name it gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Commands, publishes among them.
    Publish,
    /// Pushes of what was published.
    Subscribe,
    /// Not known, or not yet.
    Other,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Other];

    /// The kind that a client's first bytes tell, by the name in `CLIENT SETNAME`.
    fn told_by(bytes: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 2] =
            [(b"fanfare-publish", Self::Publish), (b"fanfare-subscribe", Self::Subscribe)];
        let found = names.into_iter().find(|(name, _)| {
            bytes.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name))
        });
        found.map(|(_, kind)| kind)
    }
}

/// The mode of each kind, in the order of [`Kind::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Modes([Mode; 3]);

impl Modes {
    fn of(self, kind: Kind) -> Mode {
        self.0[kind as usize]
    }
}

/// Open connections by kind, in the order of [`Kind::ALL`].
type Counts = Arc<[AtomicUsize; 3]>;

/// Relays from an address of its own. Dropping it closes all.
pub struct ChaosProxy {
    pub addr: SocketAddr,
    modes: watch::Sender<Modes>,
    open: Counts,
    _tasks: JoinSet<()>,
}

impl ChaosProxy {
    /// Starts in front of a target, passing everything.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let addr = listener.local_addr().expect("bound");
        let modes = watch::Sender::new(Modes([Mode::Pass; 3]));
        let open = Counts::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, modes.subscribe(), open.clone()));
        Self { addr, modes, open, _tasks: tasks }
    }

    /// As `--redis` takes it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Sets the mode of every connection.
    pub fn set(&self, mode: Mode) {
        self.modes.send_replace(Modes([mode; 3]));
    }

    /// Sets the mode of the connections of one kind.
    pub fn set_for(&self, kind: Kind, mode: Mode) {
        self.modes.send_modify(|modes| modes.0[kind as usize] = mode);
    }

    /// How many connections of a kind are open.
    pub fn open(&self, kind: Kind) -> usize {
        self.open[kind as usize].load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn all_open(&self) -> usize {
        Kind::ALL.into_iter().map(|kind| self.open(kind)).sum()
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    modes: watch::Receiver<Modes>,
    open: Counts,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("there are files left");
        let connection = Connection::new(client, modes.clone(), open.clone());
        connections.spawn(connection.run(target));
        while connections.try_join_next().is_some() {}
    }
}

//! One connection through the proxy, from its accept to its end.

use std::{net::SocketAddr, sync::atomic::Ordering};

use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::watch};

use super::{Counts, Kind, Mode, Modes, pump::pump};

/// Bytes searched for a client's name: it is in the first commands.
const HANDSHAKE_BYTES: usize = 16 * 1024;

pub(super) struct Connection {
    client: TcpStream,
    modes: watch::Receiver<Modes>,
    open: Open,
}

impl Connection {
    pub fn new(client: TcpStream, modes: watch::Receiver<Modes>, counts: Counts) -> Self {
        Self { client, modes, open: Open::new(counts) }
    }

    /// Runs until a side ends the connection, or the proxy cuts it.
    pub async fn run(self, target: SocketAddr) {
        let Self { mut client, modes, open } = self;
        let mode = watch::Sender::new(modes.borrow().of(Kind::Other));
        let server = tokio::select! {
            server = TcpStream::connect(target) => server.ok(),
            () = until_cut(&mode) => None,
        };
        // An unreachable target: the client sees its connection reset.
        let Some(mut server) = server else { return reset(&client) };
        for socket in [&client, &server] {
            socket.set_nodelay(true).expect("a TCP socket");
        }
        let mut handshake = Vec::new();
        let open = &open;
        let tell_kind = |bytes: &[u8]| {
            if open.kind() != Kind::Other || handshake.len() > HANDSHAKE_BYTES {
                return;
            }
            handshake.extend_from_slice(bytes);
            if let Some(kind) = Kind::told_by(&handshake) {
                open.become_kind(kind);
                mode.send_replace(modes.borrow().of(kind));
            }
        };
        let mut changes = modes.clone();
        let follow_modes = async {
            while changes.changed().await.is_ok() {
                mode.send_replace(changes.borrow_and_update().of(open.kind()));
            }
        };
        let is_cut = {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let both_ways = async {
                tokio::join!(
                    pump(&mut from_client, &mut to_server, mode.subscribe(), tell_kind),
                    pump(&mut from_server, &mut to_client, mode.subscribe(), |_| {}),
                )
            };
            tokio::select! {
                _ = both_ways => false,
                () = until_cut(&mode) => true,
                () = follow_modes => false,
            }
        };
        if is_cut {
            reset(&client);
            reset(&server);
        }
    }
}

async fn until_cut(mode: &watch::Sender<Mode>) {
    let cut = mode.subscribe().wait_for(|mode| *mode == Mode::Cut).await.is_ok();
    debug_assert!(cut, "the sender is borrowed");
}

/// Makes the socket end with RST on drop.
fn reset(socket: &TcpStream) {
    socket.set_zero_linger().expect("a TCP socket");
}

/// Counts a connection while it is open.
struct Open {
    counts: Counts,
    kind: Mutex<Kind>,
}

impl Open {
    fn new(counts: Counts) -> Self {
        counts[Kind::Other as usize].fetch_add(1, Ordering::SeqCst);
        Self { counts, kind: Mutex::new(Kind::Other) }
    }

    fn kind(&self) -> Kind {
        *self.kind.lock()
    }

    fn become_kind(&self, kind: Kind) {
        self.counts[kind as usize].fetch_add(1, Ordering::SeqCst);
        let before = std::mem::replace(&mut *self.kind.lock(), kind);
        self.counts[before as usize].fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts[self.kind() as usize].fetch_sub(1, Ordering::SeqCst);
    }
}

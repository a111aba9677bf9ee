//! Head sniffing: an accepted connection becomes a raw stream or raw poll, or goes to the framework. Sniffing
//! peeks and consumes nothing, so the framework reads the whole head itself.
//!
//! 1. Peek until the head is complete or certainly not a plain `GET`, for a limited time.
//! 2. Open the stream of a plain `GET`. If the hub refuses it, the framework answers.
//! 3. The connection's future changes its role in place: raw stream or framework.

use std::{
    cell::Cell,
    future::{Future, poll_fn, ready as ready_now},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_http::KeepAlive;
use actix_server::GracefulShutdownSignal;
use actix_service::{Service, ServiceFactory};
use actix_web::dev::RequestHead;
use bytes::Bytes;
use fanfare_core::error::ErrorCode;
use futures_util::future::{Either, FutureExt, LocalBoxFuture, select};
use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::{
    admission::{Admission, Admitted, Connections, is_reserved, refusal},
    head::{StreamHead, request_timeout},
    plain_publishes::{Received, answer_all, may_be_plain},
    streams::{Opened, Routes},
};
use crate::{
    access::first_look,
    http::poll::raw_response,
    hub::Hub,
    transport::{
        CountedConnections, MAX_HEAD_BYTES, NewStream, Place, RawPoll, Sniffed, batch_sends,
        limit_unsent, look, prepare_streams, run_stream,
    },
};

/// Peeks at one head: large heads, with many cookies, come in several packets.
const MAX_LOOKS: usize = 4;

/// Time limit for the rest of an incomplete head: some round trips.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes a worker's [`HeadSniffer`].
pub(super) struct SnifferFactory<F> {
    ordinary: F,
    routes: Arc<Routes>,
    connections: Arc<Connections>,
    head_timeout: Duration,
    keep_alive: KeepAlive,
    stopping: GracefulShutdownSignal,
    is_tls: bool,
}

impl<F> SnifferFactory<F> {
    /// `ordinary` is the framework's service: it takes all connections but raw streams. The times are of a first head,
    /// and of an idle connection.
    pub fn new(
        ordinary: F,
        routes: Arc<Routes>,
        connections: Arc<Connections>,
        (head_timeout, keep_alive): (Duration, KeepAlive),
        stopping: GracefulShutdownSignal,
    ) -> Self {
        Self { ordinary, routes, connections, head_timeout, keep_alive, stopping, is_tls: false }
    }

    /// For connections with TLS: their first bytes are no head, so the framework gets them all.
    #[cfg(feature = "tls")]
    pub fn over_tls(mut self) -> Self {
        self.is_tls = true;
        self
    }
}

impl<F> ServiceFactory<TcpStream> for SnifferFactory<F>
where
    F: ServiceFactory<Received, Config = (), Response = ()>,
    F::Future: 'static,
    F::Service: 'static,
    F::InitError: 'static,
{
    type Response = ();
    type Error = F::Error;
    type Config = ();
    type Service = HeadSniffer<F::Service>;
    type InitError = F::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let ordinary = self.ordinary.new_service(());
        actix_rt::spawn(drain_with_server(self.routes.hub.clone(), self.stopping.clone()));
        if self.routes.hub.parts().config.server.batched_sends {
            batch_sends();
        }
        prepare_streams();
        let desk = SnifferShared {
            routes: self.routes.clone(),
            connections: self.connections.clone(),
            stream_head: StreamHead::new(),
            head_timeout: self.head_timeout,
            keep_alive: self.keep_alive,
            stopping: self.stopping.clone(),
            is_tls: self.is_tls,
            streams: Rc::new(RunningStreams::new(self.connections.clone())),
        };
        let door = async move {
            Ok(HeadSniffer { ordinary: Rc::new(ordinary.await?), desk: Rc::new(desk) })
        };
        door.boxed_local()
    }
}

/// Drains the hub when the server stops gracefully.
async fn drain_with_server(hub: Hub, stopping: GracefulShutdownSignal) {
    stopping.notified().await;
    hub.drain_detached();
}

/// Takes a worker's connections, one [`ServerConnection`] each.
pub(super) struct HeadSniffer<S> {
    ordinary: Rc<S>,
    desk: Rc<SnifferShared>,
}

impl<S> Service<TcpStream> for HeadSniffer<S>
where
    S: Service<Received, Response = ()>,
{
    type Response = ();
    type Error = S::Error;
    /// One pointer: the server's task of a connection stores this future twice.
    type Future = Pin<Box<ServerConnection<S>>>;

    fn poll_ready(&self, task: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.ordinary.poll_ready(task)
    }

    fn call(&self, socket: TcpStream) -> Self::Future {
        let desk = self.desk.clone();
        let (role, admitted) = match desk.connections.admit(&desk.routes.hub, &socket) {
            Admission::Open(admitted) if desk.is_tls => {
                limit_unsent(&socket, desk.routes.write_timeout());
                let received = Received::unread(socket);
                (Role::Ordinary(Box::pin(self.ordinary.call(received))), Some(admitted))
            }
            Admission::Open(admitted) => {
                let received = desk.receive(socket).boxed_local();
                (Role::New(self.ordinary.clone(), received), Some(admitted))
            }
            Admission::Reserved(admitted) if !desk.is_tls => {
                let received = desk.receive_reserved(socket).boxed_local();
                (Role::New(self.ordinary.clone(), received), Some(admitted))
            }
            Admission::Reserved(_) => (Role::gone(self.ordinary.clone()), None),
            Admission::Refused(code) => {
                if !desk.is_tls {
                    refuse(&socket, code);
                }
                (Role::gone(self.ordinary.clone()), None)
            }
        };
        let streams = self.desk.streams.clone();
        Box::pin(ServerConnection { role, admitted, streams })
    }
}

/// A connection with its places.
pub(super) struct ServerConnection<S: Service<Received>> {
    role: Role<S>,
    admitted: Option<Admitted>,
    streams: Rc<RunningStreams>,
}

/// A connection in its current role. Raw streams leave it: the server's task of a connection takes
/// as much memory as a whole raw stream.
enum Role<S: Service<Received>> {
    New(Rc<S>, LocalBoxFuture<'static, SniffedConnection>),
    Ordinary(Pin<Box<S::Future>>),
    /// Plain publishes, until another request.
    Publishing(Rc<S>, LocalBoxFuture<'static, Option<Received>>),
    Poll(Box<RawPoll>),
    /// Counts as a connection of the server as long as the worker has raw streams.
    Keeper,
}

/// The raw streams of a worker.
struct RunningStreams {
    connections: Arc<Connections>,
    count: Cell<usize>,
    has_keeper: Cell<bool>,
    keeper: Cell<Option<Waker>>,
}

impl RunningStreams {
    fn new(connections: Arc<Connections>) -> Self {
        let (count, has_keeper, keeper) = Default::default();
        Self { connections, count, has_keeper, keeper }
    }

    fn poll_none(&self, task: &Context<'_>) -> Poll<()> {
        if self.count.get() > 0 {
            self.keeper.set(Some(task.waker().clone()));
            return Poll::Pending;
        }
        self.has_keeper.set(false);
        Poll::Ready(())
    }
}

impl RunningStreams {
    /// The place of a raw stream, among the worker's streams and the connections of the server.
    fn place(self: &Rc<Self>, admitted: Admitted) -> Place {
        self.count.set(self.count.get() + 1);
        Place::new(self.clone(), admitted.hand_over())
    }
}

impl CountedConnections for RunningStreams {
    fn end_one(&self) {
        self.connections.end_one();
        let count = self.count.get() - 1;
        self.count.set(count);
        if count == 0 {
            self.keeper.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl<S: Service<Received>> Role<S> {
    /// Closes the socket.
    fn gone(ordinary: Rc<S>) -> Self {
        Self::New(ordinary, ready_now(SniffedConnection::Gone).boxed_local())
    }
}

impl<S> Future for ServerConnection<S>
where
    S: Service<Received, Response = ()>,
{
    type Output = Result<(), S::Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        // A new role must be polled in this call: a role not polled yet has registered no waker.
        loop {
            self.role = match &mut self.role {
                Role::New(ordinary, received) => match ready!(received.as_mut().poll(task)) {
                    SniffedConnection::Ordinary(socket) => {
                        Role::Ordinary(Box::pin(ordinary.call(Received::unread(socket))))
                    }
                    SniffedConnection::Publishing(publishing) => {
                        Role::Publishing(ordinary.clone(), publishing)
                    }
                    SniffedConnection::Stream(new) => {
                        // Only admitted connections are sniffed.
                        let Some(admitted) = self.admitted.take() else {
                            return Poll::Ready(Ok(()));
                        };
                        let streams = self.streams.clone();
                        let place = streams.place(admitted);
                        let NewRawStream { socket, stream, head } = *new;
                        run_stream(socket, stream, head, place);
                        if streams.has_keeper.replace(true) {
                            return Poll::Ready(Ok(()));
                        }
                        Role::Keeper
                    }
                    SniffedConnection::Poll(poll) => Role::Poll(Box::new(poll)),
                    SniffedConnection::Gone => return Poll::Ready(Ok(())),
                },
                Role::Publishing(ordinary, publishing) => {
                    match ready!(publishing.as_mut().poll(task)) {
                        Some(received) => Role::Ordinary(Box::pin(ordinary.call(received))),
                        None => return Poll::Ready(Ok(())),
                    }
                }
                Role::Ordinary(ordinary) => return ordinary.as_mut().poll(task),
                Role::Keeper => return self.streams.poll_none(task).map(Ok),
                Role::Poll(poll) => return Pin::new(poll).poll(task).map(Ok),
            };
        }
    }
}

/// The result of head sniffing. `Gone` closes the socket.
pub(super) enum SniffedConnection {
    Ordinary(TcpStream),
    Publishing(LocalBoxFuture<'static, Option<Received>>),
    Stream(Box<NewRawStream>),
    Poll(RawPoll),
    Gone,
}

/// A raw stream not yet started.
pub(super) struct NewRawStream {
    socket: TcpStream,
    stream: NewStream,
    head: Bytes,
}

/// Common to all connections of a worker.
pub(super) struct SnifferShared {
    pub routes: Arc<Routes>,
    connections: Arc<Connections>,
    stream_head: StreamHead,
    head_timeout: Duration,
    pub keep_alive: KeepAlive,
    pub stopping: GracefulShutdownSignal,
    is_tls: bool,
    streams: Rc<RunningStreams>,
}

impl SnifferShared {
    /// Sniffs the head, for at most `head_timeout`, and decides the role.
    async fn receive(self: Rc<Self>, socket: TcpStream) -> SniffedConnection {
        let looked = {
            let stopped = pin!(self.stopping.notified());
            let looked = pin!(timeout(self.head_timeout, self.look(&socket)));
            match select(looked, stopped).await {
                Either::Left((looked, _)) => looked,
                // The server stops. The framework gets the same signal and ends connections
                // without a request, so it may have this one.
                Either::Right(_) => Ok(Ok(Sniffed::Other)),
            }
        };
        let head = match looked {
            Ok(Ok(Sniffed::Plain(head))) => head,
            Ok(Ok(Sniffed::Publish)) => {
                let publishing = async move { answer_all(&self, socket).await };
                return SniffedConnection::Publishing(publishing.boxed_local());
            }
            Ok(Ok(Sniffed::Partial | Sniffed::Other)) => {
                return SniffedConnection::Ordinary(socket);
            }
            Ok(Err(_)) => return SniffedConnection::Gone,
            Err(_) => {
                // One try: the connection is closed also if the client does not take the answer.
                let _ = socket.try_write(request_timeout().as_bytes());
                return SniffedConnection::Gone;
            }
        };
        self.open(socket, *head).await
    }

    /// Beyond the limit of connections: the framework gets requests of reserved paths only.
    async fn receive_reserved(self: Rc<Self>, socket: TcpStream) -> SniffedConnection {
        let first = async {
            socket.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 32];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            poll_fn(|task| socket.poll_peek(task, &mut buffer)).await?;
            Ok::<_, io::Error>(is_reserved(buffer.filled()))
        };
        match timeout(REST_TIMEOUT, first).await {
            Ok(Ok(true)) => SniffedConnection::Ordinary(socket),
            _ => {
                refuse(&socket, ErrorCode::AtCapacity);
                SniffedConnection::Gone
            }
        }
    }

    /// Opens the requested stream. A refused request goes to the framework unread, so the client
    /// gets the endpoint's refusal.
    async fn open(&self, socket: TcpStream, mut head: RequestHead) -> SniffedConnection {
        // The application's functions may read the client's address, as from the framework.
        head.peer_addr = socket.peer_addr().ok();
        let Some(opened) = first_look(self.routes.open(&head)).await else {
            return SniffedConnection::Ordinary(socket);
        };
        // Each write is a complete chunk: delaying it (Nagle) saves nothing and adds latency.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "small writes may be delayed");
        }
        let cors_lines = self.routes.cors_lines(&head);
        match opened {
            Opened::Stream(stream) => {
                let head = self.stream_head.with(&cors_lines);
                SniffedConnection::Stream(Box::new(NewRawStream { socket, stream, head }))
            }
            Opened::Poll(stream, spec) => {
                let poll = RawPoll::new(socket, stream, spec, cors_lines.into(), raw_response);
                SniffedConnection::Poll(poll)
            }
        }
    }

    /// Peeks at the client's first bytes. A partial head gets [`REST_TIMEOUT`] for its rest, then
    /// the framework has it.
    async fn look(&self, socket: &TcpStream) -> io::Result<Sniffed> {
        let (look, mut count) = self.look_once(socket).await?;
        if !matches!(look, Sniffed::Partial) {
            return Ok(look);
        }
        let rest = async {
            // Each look parses the head from its start: a bound on looks keeps a client sending
            // byte by byte from costing a parse per byte.
            for _ in 1..MAX_LOOKS {
                if !until_more(socket, count).await? {
                    break;
                }
                let (look, more) = self.look_once(socket).await?;
                if !matches!(look, Sniffed::Partial) {
                    return Ok(look);
                }
                count = more;
            }
            Ok(Sniffed::Other)
        };
        timeout(REST_TIMEOUT, rest).await.unwrap_or(Ok(Sniffed::Other))
    }

    fn look_at(&self, bytes: &[u8]) -> Sniffed {
        let path = self.routes.publish_path.as_deref();
        if path.is_some_and(|path| may_be_plain(bytes, path)) {
            return Sniffed::Publish;
        }
        look(bytes, |path| self.routes.has(path))
    }

    /// Peeks at the available bytes, and counts them. An end of the connection is an error.
    async fn look_once(&self, socket: &TcpStream) -> io::Result<(Sniffed, usize)> {
        poll_fn(|task| {
            // Inside the poll, the buffer is on the stack only while bytes are there: a waiting
            // connection holds no 8 KiB.
            let mut buffer = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(socket.poll_peek(task, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Ok((self.look_at(bytes), bytes.len())))
        })
        .await
    }
}

/// Answers a refused connection. One try: it is closed also if the client does not take the answer.
fn refuse(socket: &TcpStream, code: ErrorCode) {
    // Not by Tokio: a new socket counts as ready only after its first turn.
    let socket = SockRef::from(socket);
    let _ = socket.send(refusal(code).as_bytes());
    // Unread bytes at the close would reset the connection, and the answer with it.
    let mut unread = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
    let _ = socket.recv(&mut unread);
}

/// Waits for more than `count` readable bytes. Returns false if the client ended its side before.
async fn until_more(socket: &TcpStream, count: usize) -> io::Result<bool> {
    // Peeked bytes stay in the socket, so it still counts as readable. The first round's
    // `WouldBlock` clears this state, and `readable` then waits for something new. If the second
    // round has no more bytes either, the new thing is the end.
    for _ in 0..2 {
        socket.readable().await?;
        let more = socket.try_io(Interest::READABLE, || {
            let mut buffer = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
            let now = SockRef::from(socket).peek(&mut buffer)?;
            if now > count { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match more {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

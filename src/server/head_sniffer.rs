//! Head sniffing: an accepted connection becomes a stream on its bare socket, or one of the
//! framework's. The framework reads the same bytes anew, so it does not notice.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_server::GracefulShutdownSignal;
use actix_service::{Service, ServiceFactory};
use actix_web::dev::RequestHead;
use futures_util::future::{Either, FutureExt, LocalBoxFuture, select};
use socket2::SockRef;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::{
    head::{StreamHead, request_timeout},
    streams::Routes,
};
use crate::transport::{MAX_HEAD_BYTES, RawStream, Sniffed, limit_unsent, look};

/// Peeks at a head: large ones, with many cookies, come in several packets.
const MAX_LOOKS: usize = 4;

/// Wait for the rest of an incomplete head: some round trips.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes a worker's [`Door`].
pub(super) struct SnifferFactory<F> {
    ordinary: F,
    routes: Arc<Routes>,
    head_timeout: Duration,
    stopping: GracefulShutdownSignal,
}

impl<F> SnifferFactory<F> {
    /// `ordinary` takes all other connections.
    pub fn new(
        ordinary: F,
        routes: Arc<Routes>,
        head_timeout: Duration,
        stopping: GracefulShutdownSignal,
    ) -> Self {
        Self { ordinary, routes, head_timeout, stopping }
    }
}

impl<F> ServiceFactory<TcpStream> for SnifferFactory<F>
where
    F: ServiceFactory<TcpStream, Config = (), Response = ()>,
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
        let desk = SnifferShared {
            routes: self.routes.clone(),
            stream_head: StreamHead::new(),
            head_timeout: self.head_timeout,
            stopping: self.stopping.clone(),
        };
        let door = async move {
            Ok(HeadSniffer { ordinary: Rc::new(ordinary.await?), desk: Rc::new(desk) })
        };
        door.boxed_local()
    }
}

/// Takes a worker's connections.
pub(super) struct HeadSniffer<S> {
    ordinary: Rc<S>,
    desk: Rc<SnifferShared>,
}

impl<S> Service<TcpStream> for HeadSniffer<S>
where
    S: Service<TcpStream, Response = ()>,
{
    type Response = ();
    type Error = S::Error;
    /// One pointer: the server's task of a connection has it twice.
    type Future = Pin<Box<ServerConnection<S>>>;

    fn poll_ready(&self, task: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.ordinary.poll_ready(task)
    }

    fn call(&self, socket: TcpStream) -> Self::Future {
        Box::pin(match self.desk.routes.is_empty() {
            true => ServerConnection::Ordinary(Box::pin(self.ordinary.call(socket))),
            false => {
                let received = self.desk.clone().receive(socket).boxed_local();
                ServerConnection::New(self.ordinary.clone(), received)
            }
        })
    }
}

/// A connection in its present role. Other roles than a stream are boxed, so streams need no room
/// for them.
pub(super) enum ServerConnection<S: Service<TcpStream>> {
    New(Rc<S>, LocalBoxFuture<'static, SniffedConnection>),
    Ordinary(Pin<Box<S::Future>>),
    Stream(RawStream),
}

impl<S> Future for ServerConnection<S>
where
    S: Service<TcpStream, Response = ()>,
{
    type Output = Result<(), S::Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            *self = match &mut *self {
                Self::New(ordinary, received) => match ready!(received.as_mut().poll(task)) {
                    SniffedConnection::Ordinary(socket) => {
                        Self::Ordinary(Box::pin(ordinary.call(socket)))
                    }
                    SniffedConnection::Stream(stream) => Self::Stream(stream),
                    SniffedConnection::Gone => return Poll::Ready(Ok(())),
                },
                Self::Ordinary(ordinary) => return ordinary.as_mut().poll(task),
                Self::Stream(stream) => return Pin::new(stream).poll(task).map(Ok),
            };
        }
    }
}

/// The role of a sniffed connection.
pub(super) enum SniffedConnection {
    Ordinary(TcpStream),
    Stream(RawStream),
    Gone,
}

/// Common to all connections of a worker.
struct SnifferShared {
    routes: Arc<Routes>,
    stream_head: StreamHead,
    head_timeout: Duration,
    stopping: GracefulShutdownSignal,
}

impl SnifferShared {
    /// Waits for the request's head and decides by it.
    async fn receive(self: Rc<Self>, socket: TcpStream) -> SniffedConnection {
        let looked = {
            let stopped = pin!(self.stopping.notified());
            let looked = pin!(timeout(self.head_timeout, self.look(&socket)));
            match select(looked, stopped).await {
                Either::Left((looked, _)) => looked,
                // The framework also learns of the stop, and ends unstarted connections.
                Either::Right(_) => Ok(Ok(Sniffed::Other)),
            }
        };
        let head = match looked {
            Ok(Ok(Sniffed::Plain(head))) => head,
            Ok(Ok(Sniffed::Partial | Sniffed::Other)) => {
                return SniffedConnection::Ordinary(socket);
            }
            Ok(Err(_)) => return SniffedConnection::Gone,
            Err(_) => {
                // Whether or not the client takes it, it is gone.
                let _ = socket.try_write(request_timeout().as_bytes());
                return SniffedConnection::Gone;
            }
        };
        self.open(socket, *head).await
    }

    async fn open(&self, socket: TcpStream, mut head: RequestHead) -> SniffedConnection {
        head.peer_addr = socket.peer_addr().ok();
        let Some(stream) = self.routes.open(&head).await else {
            return SniffedConnection::Ordinary(socket);
        };
        limit_unsent(&socket, self.routes.write_timeout());
        // A stream's writes are complete, so delaying them (Nagle) gains nothing.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "small writes may be delayed");
        }
        SniffedConnection::Stream(RawStream::new(socket, stream, self.stream_head.now()))
    }

    /// Waits for the client's first bytes and, if they are a part of a head, a moment for
    /// its rest.
    async fn look(&self, socket: &TcpStream) -> io::Result<Sniffed> {
        let (look, mut count) = self.look_once(socket).await?;
        if !matches!(look, Sniffed::Partial) {
            return Ok(look);
        }
        let rest = async {
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

    /// Peeks at the available bytes, and counts them.
    async fn look_once(&self, socket: &TcpStream) -> io::Result<(Sniffed, usize)> {
        poll_fn(|task| {
            let mut buffer = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(socket.poll_peek(task, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Ok((look(bytes, |path| self.routes.has(path)), bytes.len())))
        })
        .await
    }
}

/// Waits until there are more than so many bytes to be read; false if the client has ended
/// before.
async fn until_more(socket: &TcpStream, count: usize) -> io::Result<bool> {
    // The socket counts as readable for bytes already seen. Only after a peek without more bytes
    // does `readable` wait for new ones: the first new thing is more, or the end.
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

//! A server for a whole actix-web application; on the same port it answers streams on the bare
//! socket.

mod head;
mod head_sniffer;
mod listen;
mod streams;

use std::{
    any::Any,
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::ServerBuilder;
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, RequestHead, Service},
};

use self::{
    head_sniffer::SnifferFactory,
    streams::{Route, RouteKind, Routes},
};
use crate::{Hub, Subscription};

/// Connections held by the kernel before they are accepted: room for a storm, as far as
/// `net.core.somaxconn` allows.
const BACKLOG: u32 = 4096;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs an actix-web application, as [`actix_web::HttpServer`] does, and answers the streams
/// that it is told of without it: on the bare socket, at a fraction of the memory.
///
/// A stream is answered so if its request is a plain `GET` (HTTP/1.1, no body, not from
/// another origin, a head of less than 8 KiB) and the first on its connection. Every other
/// request goes to the application, untouched; so the application must have the route too,
/// and what it answers is the same stream. What the application wraps around its routes
/// (middleware: logs, logins, extra headers) does not see streams that are answered here:
/// a login is checked in [`Server::streams_for`] and [`Server::feeds_for`].
///
/// ```no_run
/// use actix_web::App;
/// use fanfare::{Config, Hub, Server};
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let hub = Hub::start(Config::default())?;
///     let routes = hub.clone();
///     let server = Server::new(&hub, move || App::new().configure(routes.routes("/events")));
///     server.streams_at("/events/stream").bind("127.0.0.1:8080")?.run()?.await?;
///     Ok(())
/// }
/// ```
#[must_use]
pub struct Server<F> {
    factory: F,
    hub: Hub,
    routes: Vec<Route>,
    listeners: Vec<TcpListener>,
    builder: ServerBuilder,
    keep_alive: KeepAlive,
    head_timeout: Duration,
}

impl<F> Server<F> {
    /// A server for the applications made by the factory, one a worker.
    pub fn new(hub: &Hub, factory: F) -> Self {
        Self {
            factory,
            hub: hub.clone(),
            routes: Vec::new(),
            listeners: Vec::new(),
            builder: ServerBuilder::new().backlog(BACKLOG),
            keep_alive: KeepAlive::default(),
            head_timeout: HEAD_TIMEOUT,
        }
    }

    /// Answers the streams at this path on the bare socket, with the topics of the query: for the
    /// route `{prefix}/stream` of [`Hub::routes`].
    pub fn streams_at(self, path: impl Into<String>) -> Self {
        self.route(path.into(), RouteKind::Topics(None))
    }

    /// Answers the streams at this path on the bare socket, with the topics of the request's
    /// subscription. For `None`, as without a login, the application answers. The function runs on
    /// a worker and must not block.
    pub fn streams_for(
        self,
        path: impl Into<String>,
        subscription: impl Fn(&RequestHead) -> Option<Subscription> + Send + Sync + 'static,
    ) -> Self {
        self.route(path.into(), RouteKind::Topics(Some(Arc::new(subscription))))
    }

    /// Answers the feeds at this path on the bare socket, of the query's user: for the route
    /// `{prefix}/feed` of [`Hub::routes`].
    pub fn feeds_at(self, path: impl Into<String>) -> Self {
        self.route(path.into(), RouteKind::Feed(None))
    }

    /// Answers the feeds at this path on the bare socket, of the request's user, as
    /// [`Self::streams_for`] does.
    pub fn feeds_for(
        self,
        path: impl Into<String>,
        user: impl Fn(&RequestHead) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.route(path.into(), RouteKind::Feed(Some(Arc::new(user))))
    }

    fn route(mut self, path: String, kind: RouteKind) -> Self {
        self.routes.push(Route { path, kind });
        self
    }

    /// Worker threads; one per core if this is not called.
    pub fn workers(mut self, count: usize) -> Self {
        self.builder = self.builder.workers(count);
        self
    }

    /// Connections of all kinds on one worker at once, 25,600 by default. Further ones wait to be
    /// accepted.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.builder = self.builder.max_concurrent_connections(count);
        self
    }

    /// How long a client may take to send its first request's head, 5 s by default.
    pub fn client_request_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// How long a connection without a request is kept, 5 s by default.
    pub fn keep_alive(mut self, keep_alive: impl Into<KeepAlive>) -> Self {
        self.keep_alive = keep_alive.into();
        self
    }

    /// How long connections may take to end after a graceful stop, 30 s by default.
    pub fn shutdown_timeout(mut self, seconds: u64) -> Self {
        self.builder = self.builder.shutdown_timeout(seconds);
        self
    }

    /// Leaves signals to the application: it stops the server by its handle.
    pub fn disable_signals(mut self) -> Self {
        self.builder = self.builder.disable_signals();
        self
    }

    /// Listens on each available address: a name may stand for one of IPv4 and one of IPv6.
    ///
    /// # Errors
    /// None is available.
    pub fn bind(mut self, addresses: impl ToSocketAddrs) -> io::Result<Self> {
        let mut bound = Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address"));
        for address in addresses.to_socket_addrs()? {
            match listen::bind(address, 1, BACKLOG) {
                Ok(listeners) => {
                    self.listeners.extend(listeners);
                    bound = Ok(());
                }
                Err(error) if bound.is_err() => bound = Err(error),
                Err(error) => tracing::warn!(%address, %error, "cannot listen"),
            }
        }
        bound.map(|()| self)
    }

    /// Listens on an address by several sockets, each with an accept queue of `backlog`
    /// connections: the kernel bounds the queue of one socket.
    ///
    /// # Errors
    /// The address is in use.
    pub fn bind_shared(
        mut self,
        address: SocketAddr,
        count: u32,
        backlog: u32,
    ) -> io::Result<Self> {
        self.listeners.extend(listen::bind(address, count, backlog)?);
        Ok(self)
    }

    /// Accepts from a listening socket.
    pub fn listen(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// The server's addresses.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Starts the workers. Returns the running server, as [`actix_web::HttpServer::run`] does:
    /// await it, and stop it by its handle.
    ///
    /// # Errors
    /// A socket cannot accept.
    pub fn run<I, S, B>(self) -> io::Result<actix_web::dev::Server>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: std::fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as Service<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let Self { factory, hub, routes, listeners, mut builder, keep_alive, head_timeout } = self;
        let routes = Arc::new(Routes { hub, routes });
        let stopping = builder.graceful_shutdown_signal();
        for listener in listeners {
            let (factory, routes) = (factory.clone(), routes.clone());
            let (address, is_told) = (listener.local_addr()?, stopping.clone());
            builder = builder.listen(format!("fanfare-{address}"), listener, move || {
                let stopping = is_told.clone();
                let on_connect = routes.hub.on_connect();
                let application = factory().into_factory();
                let application = application.map_err(|error| error.into().error_response());
                let ordinary = HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .keep_alive(keep_alive)
                    .client_request_timeout(head_timeout)
                    // A half-closed client is gone: it can ask nothing more of its stream.
                    .h1_allow_half_closed(false)
                    .tcp_nodelay(true)
                    .local_addr(address)
                    .on_connect_ext(move |connection: &_, data: &mut _| {
                        on_connect(connection as &dyn Any, data);
                    })
                    .finish(map_config(application, |()| AppConfig::default()))
                    .tcp();
                SnifferFactory::new(ordinary, routes.clone(), head_timeout, is_told.clone())
            })?;
        }
        Ok(builder.run())
    }
}

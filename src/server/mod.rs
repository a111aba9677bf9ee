//! A server for a whole actix-web application. On the same port it answers streams on the bare
//! socket.

mod admission;
mod attach;
mod head;
mod head_sniffer;
mod hosts;
mod http;
#[cfg(feature = "tls")]
mod http2_socket;
mod listen;
#[cfg(feature = "tls")]
mod over_tls;
mod plain_publishes;
mod streams;
#[cfg(feature = "tls")]
mod tls;

use std::{
    future::ready,
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use actix_http::{KeepAlive, Request, Response};
use actix_server::ServerBuilder;
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, RequestHead, Service},
};

pub use self::hosts::Hosts;
#[cfg(feature = "tls")]
use self::plain_publishes::Received;
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsError};
use self::{
    admission::Connections,
    http::{HttpSettings, watch_stalled},
    streams::{Route, RouteKind, Routes},
};
use crate::{Hub, Subscription, transport::try_batched_sends};

/// Connections held by the kernel before they are accepted: room for a storm, as far as
/// `net.core.somaxconn` allows.
const BACKLOG: u32 = 4096;

/// Time limit for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs an actix-web application, as [`actix_web::HttpServer`] does, and answers its streams on the
/// bare socket, at a fraction of the memory.
///
/// A request for a registered path ([`Self::streams_at`] and its siblings) is answered on the bare
/// socket if:
///
/// - it is the first request on its connection,
/// - it is a plain `GET`: HTTP/1.1, no body, a head of less than 8 KiB, no `Origin` unless
///   `[cors]` is configured,
/// - and the hub accepts it.
///
/// Every other request goes to the application, untouched. So the application needs a route for
/// each registered path too; it answers with the same stream.
///
/// The application's middleware (logs, logins, extra headers) does not see a stream answered on the
/// bare socket. Check logins in the functions of [`Self::streams_for`] and [`Self::feeds_for`].
///
/// ```no_run
/// use actix_web::App;
/// use fanfare::{Config, Hub, Server};
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let hub = Hub::start(Config::default())?;
///     let routes = hub.clone();
///     let server = Server::new(&hub, move || App::new().configure(routes.routes("/events").streams()));
///     server.streams_at("/events/stream").bind("127.0.0.1:8080")?.run()?.await?;
///     Ok(())
/// }
/// ```
#[must_use]
pub struct Server<F> {
    factory: F,
    hub: Hub,
    hosts: Option<Hosts>,
    routes: Vec<Route>,
    publish_path: Option<String>,
    listeners: Vec<TcpListener>,
    builder: ServerBuilder,
    max_open_connections: usize,
    keep_alive: KeepAlive,
    head_timeout: Duration,
    listens_to_signals: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl<F> Server<F> {
    /// A server for an application. Each worker calls `factory` once per listening socket. Bind at
    /// least one address before [`Self::run`].
    pub fn new(hub: &Hub, factory: F) -> Self {
        Self {
            factory,
            hub: hub.clone(),
            hosts: None,
            routes: Vec::new(),
            publish_path: None,
            listeners: Vec::new(),
            builder: ServerBuilder::new().backlog(BACKLOG).shutdown_timeout(hub.shutdown_seconds()),
            max_open_connections: usize::MAX / 2,
            keep_alive: KeepAlive::default(),
            head_timeout: HEAD_TIMEOUT,
            listens_to_signals: true,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Takes TLS connections only: HTTP/2 and HTTP/1.1. Their streams are never raw.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Answers the streams at this path on the bare socket. The query names the topics: for the
    /// route `{prefix}/stream` of [`Hub::routes`]. The path must match exactly. Anybody may open
    /// any topic.
    pub fn streams_at(self, path: impl Into<String>) -> Self {
        self.route(path.into(), RouteKind::Topics(None))
    }

    /// Answers the streams at this path on the bare socket. `subscription` names the topics from
    /// the request's head; open options come from the request, as with [`Hub::stream`]. For `None`,
    /// for example without a login, the application answers. The function runs on a worker and must
    /// not block.
    pub fn streams_for(
        self,
        path: impl Into<String>,
        subscription: impl Fn(&RequestHead) -> Option<Subscription> + Send + Sync + 'static,
    ) -> Self {
        self.route(path.into(), RouteKind::Topics(Some(Arc::new(subscription))))
    }

    /// Answers the feeds at this path on the bare socket. The query names the user: for the route
    /// `{prefix}/feed` of [`Hub::routes`]. Anybody may open any user's feed.
    pub fn feeds_at(self, path: impl Into<String>) -> Self {
        self.route(path.into(), RouteKind::Feed(None))
    }

    /// Answers the feeds at this path on the bare socket. `user` names the user from the request's
    /// head, under the rules of [`Self::streams_for`].
    pub fn feeds_for(
        self,
        path: impl Into<String>,
        user: impl Fn(&RequestHead) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.route(path.into(), RouteKind::Feed(Some(Arc::new(user))))
    }

    /// Answers the polls at this path on the bare socket, under the rules of [`Self::streams_at`]:
    /// for the route `{prefix}/poll` of [`Hub::routes`].
    pub fn polls_at(self, path: impl Into<String>) -> Self {
        self.route(path.into(), RouteKind::Poll)
    }

    /// Answers plain publishes to this path without the application, at half its cost: for the route `{prefix}/publish` of
    /// [`Hub::routes`]. A publish is plain if it is a `POST` of one event for one topic, with its length, of the type
    /// `application/json`, with at most 4 KiB, and without a credential, a cookie, an origin or a proxy's headers. With
    /// `[access]` or `[cors]`, no publish is plain. The application's middleware does not see plain publishes. From the first other
    /// request on, a connection belongs to the application.
    pub fn publishes_at(self, path: impl Into<String>) -> Self {
        Self { publish_path: Some(path.into()), ..self }
    }

    fn route(mut self, path: String, kind: RouteKind) -> Self {
        self.routes.push(Route { path, kind });
        self
    }

    /// Leaves streams for other hosts to the application: it must refuse them, see
    /// [`Hosts::answers`].
    pub fn hosts(mut self, hosts: Hosts) -> Self {
        self.hosts = Some(hosts);
        self
    }

    /// Worker threads, at least 1; one per core by default.
    pub fn workers(mut self, count: usize) -> Self {
        self.builder = self.builder.workers(count);
        self
    }

    /// Connections of all kinds on one worker at once, 25,600 by default. Further connections wait
    /// in the kernel's accept queue.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.builder = self.builder.max_concurrent_connections(count);
        self
    }

    /// Connections of all kinds of all workers at once, without a limit by default. A few more are
    /// served for requests of `/health/`, `/metrics` and `/stats`; all others get 503 and are closed.
    pub fn max_open_connections(mut self, count: usize) -> Self {
        self.max_open_connections = count;
        self
    }

    /// Time limit for a client's first request head, 5 s by default. The server then answers 408
    /// and closes the connection.
    pub fn client_request_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// Time before the server closes a connection idle after a request, 5 s by default. Streams are
    /// not idle.
    pub fn keep_alive(mut self, keep_alive: impl Into<KeepAlive>) -> Self {
        self.keep_alive = keep_alive.into();
        self
    }

    /// Time limit for connections to end after a graceful stop; by default about the drain window
    /// (`server.drain`). The server then drops the rest.
    pub fn shutdown_timeout(mut self, seconds: u64) -> Self {
        self.builder = self.builder.shutdown_timeout(seconds);
        self
    }

    /// Leaves signals to the application. It stops the server by the handle of the running server.
    pub fn disable_signals(mut self) -> Self {
        self.listens_to_signals = false;
        self
    }

    /// Listens on every available address of a name, for example one of IPv4 and one of IPv6.
    /// Unavailable ones are skipped.
    ///
    /// # Errors
    /// The name has no address, or none of its addresses is available.
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

    /// Listens on an address with `count` sockets (at least 1), each with an accept queue of
    /// `backlog` connections. The kernel bounds one queue at `net.core.somaxconn`.
    ///
    /// # Errors
    /// The address is in use or unavailable.
    pub fn bind_shared(
        mut self,
        address: SocketAddr,
        count: u32,
        backlog: u32,
    ) -> io::Result<Self> {
        self.listeners.extend(listen::bind(address, count, backlog)?);
        Ok(self)
    }

    /// Accepts connections from a socket already listening.
    pub fn listen(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// The addresses of all listening sockets; for port 0, the port chosen by the kernel.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Starts the workers. Returns the running server, as [`actix_web::HttpServer::run`] does:
    /// await it, and stop it by its handle.
    ///
    /// A stop drains the hub: on SIGTERM and SIGINT, and on a graceful stop by the handle, every
    /// stream gets `shutdown`, and the server ends within `server.drain` and a second.
    ///
    /// # Errors
    /// A listening socket is unusable.
    ///
    /// # Panics
    /// Without a listening socket.
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
        let Self { factory, hub, hosts, routes, publish_path, listeners, mut builder, .. } = self;
        #[cfg(feature = "tls")]
        let tls = self.tls;
        let (keep_alive, head_timeout) = (self.keep_alive, self.head_timeout);
        builder = match self.listens_to_signals {
            true => builder.shutdown_signal(hub.clone().stop_signal()),
            false => builder.disable_signals(),
        };
        let connections = Connections::new(self.max_open_connections);
        if !routes.is_empty() {
            log_way_of_sending(hub.parts().config.server.batched_sends);
        }
        let routes = Arc::new(Routes { hub, hosts, routes, publish_path });
        let stopping = builder.graceful_shutdown_signal();
        for listener in listeners {
            let address = listener.local_addr()?;
            let (factory, routes, connections) =
                (factory.clone(), routes.clone(), connections.clone());
            let http = HttpSettings {
                address,
                keep_alive,
                head_timeout,
                stopping: stopping.clone(),
                write_timeout: routes.write_timeout(),
            };
            let application = move || {
                let application = factory().into_factory();
                let application = application.map_err(|error| error.into().error_response());
                map_config(application, |()| AppConfig::default())
            };
            let name = format!("fanfare-{address}");
            #[cfg(feature = "tls")]
            if let Some(tls) = &tls {
                let settings = tls.settings()?;
                builder = builder.listen(name, listener, move || {
                    let ordinary = http.builder().finish(application());
                    let ordinary = over_tls::over_tls(settings.clone(), head_timeout, ordinary);
                    let ordinary = fn_service(|received: Received| ready(Ok(received.socket)))
                        .and_then(ordinary);
                    http.sniffer(ordinary, routes.clone(), connections.clone()).over_tls()
                })?;
                continue;
            }
            builder = builder.listen(name, listener, move || {
                let watched = http.clone();
                let ordinary = fn_service(move |received| ready(Ok(watched.connection(received))));
                let service = http.builder().on_connect_ext(watch_stalled).finish(application());
                let ordinary = ordinary.and_then(service);
                http.sniffer(ordinary, routes.clone(), connections.clone())
            })?;
        }
        Ok(builder.run())
    }
}

fn log_way_of_sending(batches_sends: bool) {
    match batches_sends.then(try_batched_sends) {
        Some(Ok(())) => tracing::info!("the sends of a turn go together, by io_uring"),
        Some(Err(error)) => tracing::info!(%error, "every stream sends for itself: no io_uring"),
        None => tracing::info!("every stream sends for itself: batched_sends is off"),
    }
}

//! A hub and `actix_web::HttpServer`: all settings of a server with streams in one call.

use std::fmt::Debug;

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::{Error, HttpServer, body::MessageBody, dev::AppConfig};

use crate::{http::registered::ServerHub, hub::Hub};

impl Hub {
    /// Prepares an [`HttpServer`] for streams. Bind and run the returned server.
    ///
    /// - **It drains the hub when it stops.** On SIGTERM and SIGINT every stream gets `shutdown`,
    ///   and the server ends within `server.drain` and a second. A second signal stops the server
    ///   at once. After `disable_signals` or a `shutdown_signal` of your own, call [`Hub::drain`]
    ///   before the stop.
    /// - **It notices a closed client at once** (`h1_allow_half_closed(false)`).
    /// - **The kernel ends connections without progress** ([`Hub::on_connect`]).
    /// - **Handlers with an argument `hub: Hub` get this hub**, without `app_data`. A hub registered with
    ///   the application comes first.
    /// - Connections have the rest of the drain window to end (`shutdown_timeout`).
    ///
    /// [`Server`](crate::Server) does the same by itself.
    ///
    /// ```no_run
    /// # use actix_web::{App, HttpServer};
    /// # async fn run(hub: fanfare::Hub) -> std::io::Result<()> {
    /// hub.attach(HttpServer::new(App::new)).bind("127.0.0.1:8080")?.run().await
    /// # }
    /// ```
    pub fn attach<F, I, S, B>(&self, server: HttpServer<F, I, S, B>) -> HttpServer<F, I, S, B>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as Service<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let (limit_unsent, hub) = (self.on_connect(), ServerHub(self.clone()));
        server
            .on_connect(move |connection, data| {
                limit_unsent(connection, data);
                data.insert(hub.clone());
            })
            .h1_allow_half_closed(false)
            .shutdown_timeout(self.shutdown_seconds())
            .shutdown_signal(self.clone().stop_signal())
    }
}

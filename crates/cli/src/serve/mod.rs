//! `fanfare serve`: the life of the server, from the configuration to the drain. `flags` and `check`
//! own the configuration, `banner` the printed text.

mod admin;
mod banner;
mod certificate;
mod check;
mod flags;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpResponse,
    body::MessageBody,
    dev::{ServerHandle, ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    rt::signal::unix::{SignalKind, signal},
    web::{self, Data},
};
use actix_web_lab::middleware::CatchPanic;
use fanfare::{Config, Hosts, Hub, Server, StartError, Tls, config::Transport};
use fanfare_core::error::ErrorCode;
use serde_json::json;
use tokio::time::{sleep, timeout};

use self::banner::Banner;
pub(crate) use self::flags::ServeArgs;
use super::{CliError, demo};

/// The signal of a write past the limit of file sizes, by its number on Linux.
const SIGXFSZ: i32 = 25;

/// Open files besides the streams: listeners, logs, event queues, connections being refused.
const SPARE_FILES: u64 = 200;

/// Time limit for a client to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest time of answering new requests with 503 before the listeners close.
const LINGER: Duration = Duration::from_secs(1);

/// Additional time after the drain window, before connections are cut.
const DRAIN_GRACE: Duration = Duration::from_millis(800);

/// Runs the server until a signal, and then the drain.
///
/// # Errors
/// An invalid configuration, no listener, a server error, or a second signal during the drain.
pub(crate) async fn run(arguments: ServeArgs) -> Result<(), CliError> {
    let mut loaded = arguments.load()?;
    let has_demo_data = arguments.wants_demo_data(&loaded.config);
    // With Redis, all instances need the same policies, with the demo or without.
    if has_demo_data && loaded.config.redis.url.is_empty() {
        loaded.config.topics.extend(demo::policies());
    }
    let tls = certificate::read(&loaded.config)?;
    if arguments.check {
        print!("{}", check::report(&arguments, &loaded)?);
        return Ok(());
    }
    let mut config = loaded.config;
    survive_file_size_limit();
    let open_files = raise_open_files();
    let room = usize::try_from(open_files.saturating_sub(SPARE_FILES)).unwrap_or(usize::MAX);
    config.hub.max_connections = config.hub.max_connections.min(room.max(1));
    let hub = Hub::start(config.clone()).map_err(|error| match error {
        StartError::Log(_) => CliError::Usage(error.to_string()),
        error => CliError::Failed(error.to_string()),
    })?;
    // A Redis without an answer must not delay the start: the hub retries.
    if let Ok(Err(error)) = timeout(config.redis.timeout, hub.first_contact()).await {
        return Err(CliError::Usage(error.to_string()));
    }
    let (server, address) = start(&hub, &config, has_demo_data, tls)?;
    let admin = config.admin.listen.map(|listen| admin::start(&hub, listen)).transpose()?;
    if has_demo_data {
        actix_web::rt::spawn(demo::publish(hub.clone()));
    }
    let handle = server.handle();
    let mut server = actix_web::rt::spawn(server);
    if !arguments.log.quiet {
        // The link is up before its first contact is reported.
        let is_linked = hub.is_ready();
        Banner { config: &config, address, admin, open_files, has_demo_data, is_linked }.print();
    }
    tokio::select! {
        result = &mut server => return ended(result),
        () = told_to_stop() => {}
    }
    tokio::select! {
        () = drain(&hub, config.server.drain, &handle) => Ok(()),
        () = told_to_stop() => Err(CliError::Failed("stopped before the drain ended".to_owned())),
    }
}

fn start(
    hub: &Hub,
    config: &Config,
    has_demo_data: bool,
    tls: Option<Tls>,
) -> Result<(actix_web::dev::Server, SocketAddr), CliError> {
    let settings = &config.server;
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("cannot listen on {}: {error}", settings.listen))
    };
    let routes = hub.clone();
    let hosts = Hosts::new(&settings.hosts, settings.listen);
    let raw_hosts = hosts.clone();
    let has_admin = config.admin.listen.is_some();
    let mut server = Server::new(hub, move || {
        App::new()
            .wrap(from_fn(refuse_other_hosts))
            .app_data(Data::new(hosts.clone()))
            .wrap(CatchPanic::default())
            .configure(routes.routes("/events").streams().publishing().follows())
            .configure(match has_admin {
                true => routes.routes("").health(),
                false => routes.routes("").operations(),
            })
            .configure(match has_admin {
                true => routes.routes("/events"),
                false => routes.routes("/events").revocations(),
            })
            .configure(demo::pages(has_demo_data))
            .default_service(web::to(not_found))
    })
    .workers(match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    })
    .disable_signals()
    .client_request_timeout(HEAD_TIMEOUT)
    .keep_alive(settings.keep_alive)
    .hosts(raw_hosts)
    .shutdown_timeout(settings.drain.as_secs().max(1))
    // More than the limit of streams: the server must accept a further connection to answer it
    // with a refusal.
    .max_connections(config.hub.max_connections + SPARE_FILES as usize / 2)
    .max_open_connections(config.hub.max_connections + SPARE_FILES as usize / 4);
    if let Some(tls) = tls {
        certificate::keep_current(tls.clone());
        server = server.tls(tls);
    }
    if settings.transport == Transport::Raw {
        server = server.streams_at("/events/stream").feeds_at("/events/feed");
        server = server.polls_at("/events/poll").publishes_at("/events/publish");
    }
    let server = server.bind_shared(settings.listen, settings.listeners, settings.backlog);
    let server = server.map_err(failed)?;
    let address = server.addrs().first().copied().unwrap_or(settings.listen);
    Ok((server.run().map_err(failed)?, address))
}

/// Refuses requests for other hosts. A health check may name any.
async fn refuse_other_hosts(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let hosts = request.app_data::<Data<Hosts>>();
    let is_answered = hosts.is_none_or(|hosts| hosts.answers(request.head()));
    if is_answered || request.path().starts_with("/health/") {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let error = json!({
        "code": ErrorCode::WrongHost.as_str(),
        "message": "the hub does not answer for this host; `server.hosts` lists its names",
    });
    let refusal = HttpResponse::MisdirectedRequest().json(json!({ "error": error }));
    Ok(request.into_response(refusal).map_into_right_body())
}

async fn not_found() -> HttpResponse {
    let code = ErrorCode::NotFound.as_str();
    let error = json!({ "code": code, "message": "no resource at this path" });
    HttpResponse::NotFound().json(json!({ "error": error }))
}

/// Raises the limit of open files to the hard limit, and returns it. The soft limit is often
/// 1,024, for compatibility with old programs.
pub(crate) fn raise_open_files() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024)
}

/// With a limit of file sizes (`ulimit -f`), a write past it fails, and does not end the process.
fn survive_file_size_limit() {
    if let Err(error) = signal(SignalKind::from_raw(SIGXFSZ)) {
        tracing::warn!(%error, "a limit of file sizes will end this process");
    }
}

async fn told_to_stop() {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signal handlers unavailable: only SIGKILL ends this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Ends all streams, then the server: within the drain window and [`DRAIN_GRACE`].
async fn drain(hub: &Hub, window: Duration, server: &ServerHandle) {
    tracing::info!(window_ms = window.as_millis() as u64, streams = hub.connections(), "draining");
    let start = Instant::now();
    let stop = async {
        // The listeners stay open for a while, so load balancers see the failing readiness check.
        tokio::join!(hub.drain(window), sleep(LINGER.min(window / 2)));
        server.stop(true).await;
    };
    if timeout(window + DRAIN_GRACE, stop).await.is_err() {
        tracing::warn!("drain window over, remaining connections cut");
    }
    tracing::info!(duration_ms = start.elapsed().as_millis() as u64, "drained");
}

fn ended(
    result: Result<std::io::Result<()>, actix_web::rt::task::JoinError>,
) -> Result<(), CliError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(CliError::Failed(error.to_string())),
        Err(error) => Err(CliError::Failed(error.to_string())),
    }
}

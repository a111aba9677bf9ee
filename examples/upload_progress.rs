//! A page uploads a file, and the server pushes the progress of this upload.
//!
//! `cargo run --release --example upload_progress`, then open <http://127.0.0.1:8083/>. `--help`
//! names the bounds. With `FANFARE__REDIS__URL=redis://127.0.0.1` several such servers act as one:
//! the page may upload to one server and listen to another.
//!
//! Each upload has its own topic, `upload:<random id>`, conflated to the latest. A page gets the
//! newest state once a tick, at any upload speed. The end of an upload is its last event, so
//! nothing can replace it; it stays in history for returning clients.

use std::{collections::VecDeque, error::Error, net::SocketAddr, sync::Mutex, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, Responder,
    http::{StatusCode, header::CONTENT_LENGTH},
    rt,
    web::{self, Data, Path, Payload},
};
use bytesize::ByteSize;
use clap::Parser;
use fanfare::{
    Config, Event, Hub, PublishError, Subscription,
    config::{Conflate, Sources, TopicPolicy, process_environment},
};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Most announced uploads not yet begun. Over the limit, the oldest are forgotten.
const MAX_ANNOUNCED: usize = 10_000;

/// A client silent for this long is considered gone.
const STALL: Duration = Duration::from_secs(30);

/// History time of an upload's last state.
const REMEMBER: Duration = Duration::from_secs(600);

/// Pause before the next publish after a refusal by the hub.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Parser)]
struct Options {
    /// Address and port to serve on.
    #[arg(long, default_value = "127.0.0.1:8083")]
    listen: SocketAddr,
    /// The longest accepted file.
    #[arg(long, default_value = "1GiB")]
    max_size: ByteSize,
    /// Bytes read per second of an upload: makes the progress visible on a fast line. 0 reads at
    /// full speed.
    #[arg(long, default_value = "8MiB")]
    max_rate: ByteSize,
}

/// The state of an upload: the data of its events.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum State {
    #[serde(rename_all = "camelCase")]
    Progress {
        received: u64,
        /// Unknown if the client sends no length.
        total: Option<u64>,
        percent: Option<f64>,
        bytes_per_second: u64,
    },
    Done {
        received: u64,
        sha256: String,
    },
    Failed(Failure),
}

/// Reason of an early end: a stable code, and a text for people.
#[derive(Debug, Clone, Serialize)]
struct Failure {
    code: &'static str,
    message: String,
}

impl State {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Progress { .. } => "progress",
            Self::Done { .. } => "done",
            Self::Failed(_) => "failed",
        }
    }

    fn is_end(&self) -> bool {
        !matches!(self, Self::Progress { .. })
    }

    fn progress(received: u64, total: Option<u64>, started: Instant) -> Self {
        // Rounded down: 100 means complete.
        let percent = total.map(|total| (1000 * received / total.max(1)) as f64 / 10.0);
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        let bytes_per_second = (received as f64 / seconds) as u64;
        Self::Progress { received, total, percent, bytes_per_second }
    }
}

impl Failure {
    fn too_large(options: &Options) -> Self {
        let message = format!("a file may have at most {}", options.max_size);
        Self { code: "too_large", message }
    }

    fn interrupted() -> Self {
        Self { code: "interrupted", message: "the connection ended before the file did".into() }
    }

    fn stalled() -> Self {
        Self { code: "stalled", message: format!("no data for {} s", STALL.as_secs()) }
    }

    fn unknown() -> Self {
        let message = "announce an upload first; each id is valid for one upload".into();
        Self { code: "unknown_upload", message }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "stalled" => StatusCode::REQUEST_TIMEOUT,
            "unknown_upload" => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn response(&self) -> HttpResponse {
        HttpResponse::build(self.status()).json(json!({ "error": self }))
    }
}

/// Announced ids, not used yet. Each is valid for one upload: a second upload could put its
/// progress behind the end of the first.
#[derive(Default)]
struct Announced(Mutex<VecDeque<String>>);

impl Announced {
    fn add(&self) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut ids = self.0.lock().expect("no holder panics");
        ids.push_back(id.clone());
        if ids.len() > MAX_ANNOUNCED {
            ids.pop_front();
        }
        id
    }

    fn take(&self, id: &str) -> bool {
        let mut ids = self.0.lock().expect("no holder panics");
        ids.iter().position(|known| known == id).and_then(|place| ids.remove(place)).is_some()
    }
}

fn topic(id: &str) -> String {
    format!("upload:{id}")
}

/// A tick sends only the newest event of a topic, and history stores only the newest.
fn policy() -> TopicPolicy {
    let policy = TopicPolicy::new(topic("*")).conflate(Conflate::Latest);
    policy.history_events(1).history_ttl(REMEMBER)
}

/// `POST /uploads`: answers with a new id. It is random, so nobody can guess it.
async fn announce(announced: Data<Announced>, options: Data<Options>) -> impl Responder {
    let max_bytes = options.max_size.as_u64();
    HttpResponse::Created().json(json!({ "id": announced.add(), "maxBytes": max_bytes }))
}

/// `GET /uploads/{id}/events`: the upload's stream. It begins with the newest state, if there is
/// one; after a cut, `EventSource` resumes it.
async fn events(hub: Data<Hub>, id: Path<String>, request: HttpRequest) -> HttpResponse {
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return Failure::unknown().response();
    }
    hub.stream(&request, Subscription::new().topic(topic(&id)).snapshot())
}

/// `PUT /uploads/{id}`: the body is the file. The answer equals the last event.
async fn upload(
    hub: Data<Hub>,
    announced: Data<Announced>,
    options: Data<Options>,
    id: Path<String>,
    request: HttpRequest,
    body: Payload,
) -> HttpResponse {
    if !announced.take(&id) {
        return Failure::unknown().response();
    }
    let length = request.headers().get(CONTENT_LENGTH);
    let total = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let (state, watched) = watch::channel(State::progress(0, total, Instant::now()));
    // A task of its own. The upload does not wait for the hub, and the last event is published even
    // if this future is dropped with the connection.
    rt::spawn(report(Hub::clone(&hub), topic(&id), watched));
    match receive(body, total, &options, &state).await {
        Ok(done) => {
            state.send_replace(done.clone());
            HttpResponse::Ok().json(done)
        }
        Err(failure) => {
            state.send_replace(State::Failed(failure.clone()));
            failure.response()
        }
    }
}

/// Reads the body to its end. Only its hash is kept.
async fn receive(
    mut body: Payload,
    total: Option<u64>,
    options: &Options,
    state: &watch::Sender<State>,
) -> Result<State, Failure> {
    let (max_size, max_rate) = (options.max_size.as_u64(), options.max_rate.as_u64());
    if total.is_some_and(|total| total > max_size) {
        return Err(Failure::too_large(options));
    }
    let started = Instant::now();
    let mut hash = Sha256::new();
    let mut received = 0;
    loop {
        let chunk = timeout(STALL, body.next()).await.map_err(|_| Failure::stalled())?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| Failure::interrupted())?;
        received += chunk.len() as u64;
        if received > max_size {
            return Err(Failure::too_large(options));
        }
        hash.update(&chunk);
        state.send_replace(State::progress(received, total, started));
        if max_rate > 0 {
            sleep_until(started + Duration::from_secs_f64(received as f64 / max_rate as f64)).await;
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(State::Done { received, sha256 })
}

/// Publishes the newest state, up to the last one. A refused publish is retried.
async fn report(hub: Hub, topic: String, mut states: watch::Receiver<State>) {
    states.mark_changed();
    loop {
        let has_state = states.changed().await.is_ok();
        let mut state = states.borrow_and_update().clone();
        if !has_state {
            // The upload's future was dropped before its end.
            state = State::Failed(Failure::interrupted());
        }
        let event = Event::json(&state).expect("numbers and text").event_type(state.event_type());
        match hub.publish(&topic, event).await {
            Ok(_) if state.is_end() => return,
            Ok(_) => {}
            // The hub is draining: its streams end, so the event has no listeners.
            Err(PublishError::Draining) => return,
            Err(_) => {
                sleep(RETRY).await;
                states.mark_changed();
            }
        }
    }
}

async fn page() -> impl Responder {
    let page = include_str!("upload_progress.html");
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let environment = process_environment();
    let config = Config::load(&Sources::default().environment(environment))?.topic(policy());
    let hub = Hub::start(config)?;
    let announced = Data::new(Announced::default());
    let (app_hub, app_options) = (hub.clone(), Data::new(options.clone()));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(app_hub.clone()))
            .app_data(announced.clone())
            .app_data(app_options.clone())
            .route("/", web::get().to(page))
            .route("/uploads", web::post().to(announce))
            .route("/uploads/{id}", web::put().to(upload))
            .route("/uploads/{id}/events", web::get().to(events))
    });
    let server = hub.attach(server).bind(options.listen)?;
    for address in server.addrs() {
        println!("open http://{address}/");
    }
    Ok(server.run().await?)
}

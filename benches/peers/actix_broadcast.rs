//! A broadcaster on actix-web in the style of tutorials, for `scripts/compare`: a list of clients
//! behind a mutex, a bounded channel per client, `actix_web_lab::sse` for the body. It follows
//! `server-sent-events` of actix/examples, with a list per topic, and a ping every 15 s like the
//! other systems. It does not resume streams.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer, Responder, get, post,
    rt::time::interval,
    web::{Data, Path},
};
use actix_web_lab::sse;
use futures_util::future;
use parking_lot::Mutex;
use tokio::sync::mpsc;

type Client = mpsc::Sender<sse::Event>;

/// Most events waiting for one client, as in the tutorial. At the limit, publishers wait.
const CHANNEL_EVENTS: usize = 10;

const PING: Duration = Duration::from_secs(15);

/// Fanfare's backlog: 10,000 clients connect at once.
const BACKLOG: u32 = 4096;

#[derive(Default)]
struct Broadcaster {
    clients: Mutex<HashMap<String, Vec<Client>>>,
}

impl Broadcaster {
    fn create() -> Data<Self> {
        let this = Data::new(Self::default());
        actix_web::rt::spawn(Self::ping(this.clone().into_inner()));
        this
    }

    /// Pings every client of every topic, and removes disconnected clients.
    async fn ping(self: Arc<Self>) {
        let mut interval = interval(PING);
        loop {
            interval.tick().await;
            let clients: Vec<Client> = self.clients.lock().values().flatten().cloned().collect();
            for client in clients {
                let _ = client.send(sse::Event::Comment("ping".into())).await;
            }
            for clients in self.clients.lock().values_mut() {
                clients.retain(|client| !client.is_closed());
            }
        }
    }

    fn new_client(&self, topics: &str) -> mpsc::Receiver<sse::Event> {
        let (sender, receiver) = mpsc::channel(CHANNEL_EVENTS);
        let mut clients = self.clients.lock();
        for topic in topics.split(',') {
            clients.entry(topic.to_owned()).or_default().push(sender.clone());
        }
        receiver
    }

    async fn broadcast(&self, topic: &str, message: &str) {
        let clients = self.clients.lock().get(topic).cloned().unwrap_or_default();
        let sends = clients.iter().map(|client| client.send(sse::Data::new(message).into()));
        // The ping removes disconnected clients.
        future::join_all(sends).await;
    }
}

#[get("/sub/{topics}")]
async fn subscribe(broadcaster: Data<Broadcaster>, topics: Path<String>) -> impl Responder {
    sse::Sse::from_infallible_receiver(broadcaster.new_client(&topics))
}

#[post("/pub/{topic}")]
async fn publish(
    broadcaster: Data<Broadcaster>,
    topic: Path<String>,
    message: String,
) -> impl Responder {
    broadcaster.broadcast(&topic, &message).await;
    HttpResponse::Ok().body("sent")
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    // `cargo bench` runs every benchmark. This one is a server: only `scripts/compare` gives an
    // address.
    let Some(address) = std::env::args().skip_while(|it| it != "--listen").nth(1) else {
        return Ok(());
    };
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let broadcaster = Broadcaster::create();
    let app = move || App::new().app_data(broadcaster.clone()).service(subscribe).service(publish);
    HttpServer::new(app).workers(2).backlog(BACKLOG).bind(address)?.run().await
}

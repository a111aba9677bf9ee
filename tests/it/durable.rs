//! A hub with its log on disk, killed at random moments under load, and restarted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{
    Launch, Server, Stream,
    crowd::{Crowd, Numbered, Plan, seeded},
    directory::Directory,
    heavy,
    http::publish,
    social,
};

/// A topic for every partition, about: each publisher uses all of them in turn.
const TOPICS: usize = 48;
const PUBLISHERS: usize = 4;
const STREAMS: usize = 6;

/// Small segments and short histories: the kills also come in the middle of cleaning.
const CLEANED_OFTEN: &str = "[log]\nsegment_size = \"1MiB\"\n\n[history]\nevents = 200\n";

fn launch(directory: &Directory) -> Launch {
    let log = directory.path().join("log").display().to_string();
    let args = ["--no-demo", "--log", &log].map(str::to_owned).to_vec();
    Launch { args, ..Launch::default() }
}

/// A variable's number.
fn number_of(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// `FANFARE_KILLS` kills, 5 by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_and_double_nothing_and_are_no_gap() {
    let _heavy = heavy().await;
    let mut random = seeded();
    let directory = Directory::new("durable-kills");
    let launch = Launch { config: Some(CLEANED_OFTEN.to_owned()), ..launch(&directory) };
    let mut server = Server::launch(launch).await;
    let epoch = epoch_of(&server).await;
    let plan = Plan { query: "topic=load:**".to_owned(), returns_always: true, ..returning() };
    let streams = Crowd::of(server.addr, STREAMS, &plan);
    streams.until_connected(1).await;
    let load = Load::start(server.addr);
    for kill in 1..=number_of("FANFARE_KILLS", 5) {
        let before = load.acknowledged();
        // Some kills come at once after the start, others in the middle of the load.
        sleep(Duration::from_millis(random.random_range(0..400))).await;
        server = server.restart().await;
        assert_eq!(epoch_of(&server).await, epoch, "after kill {kill}");
        load.until_after(before).await;
    }
    let last = load.stop().await;
    for (lane, last) in last.into_iter().enumerate() {
        if last > 0 {
            streams.until_number(lane, last).await;
        }
        streams.assert_whole(lane, last);
    }
    for ledger in streams.ledgers() {
        assert!(ledger.gaps.is_empty(), "{}", ledger.story());
    }
}

fn returning() -> Plan {
    Plan { comes_back: true, ..Plan::default() }
}

async fn epoch_of(server: &Server) -> String {
    let answer = server.get("/events/cursor?topic=any").await.json();
    let cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    cursor.split('~').next().expect("the epoch comes first").to_owned()
}

/// Publishers with numbered events. Each repeats an event with its id until it is acknowledged.
struct Load {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
    publishers: JoinSet<Vec<(usize, u32)>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let (is_over, acknowledged) = (Arc::default(), Arc::default());
        let mut publishers = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            publishers.spawn(run(addr, publisher, Arc::clone(&is_over), Arc::clone(&acknowledged)));
        }
        Self { is_over, acknowledged, publishers }
    }

    fn acknowledged(&self) -> u32 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until further publishes are acknowledged.
    async fn until_after(&self, before: u32) {
        let what = "publishes are acknowledged again";
        crate::support::crowd::eventually(what, async || {
            self.acknowledged() > before + 2 * PUBLISHERS as u32
        })
        .await;
    }

    /// The last number of each lane.
    async fn stop(self) -> Vec<u32> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut last = vec![0; PUBLISHERS * TOPICS];
        for (lane, number) in self.publishers.join_all().await.into_iter().flatten() {
            last[lane] = number;
        }
        last
    }
}

async fn run(
    addr: SocketAddr,
    publisher: usize,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
) -> Vec<(usize, u32)> {
    let mut numbers = [0_u32; TOPICS];
    for turn in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let topic = turn % TOPICS;
        let lane = publisher * TOPICS + topic;
        numbers[topic] += 1;
        let body = json!({
            "topic": format!("load:{lane}"),
            "id": format!("{lane} {}", numbers[topic]),
            "data": Numbered::write(lane, numbers[topic], "kept"),
        });
        let body = body.to_string();
        while !is_published(addr, &body).await {
            sleep(Duration::from_millis(5)).await;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    let lanes = numbers.into_iter().enumerate();
    lanes.map(|(topic, number)| (publisher * TOPICS + topic, number)).collect()
}

/// Whether the hub acknowledged the event. A killed hub answers nothing.
async fn is_published(addr: SocketAddr, body: &str) -> bool {
    let exchange = async {
        let mut socket = TcpStream::connect(addr).await?;
        let head = format!(
            "POST /events/publish HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(Duration::from_secs(10), exchange).await;
    let answer = answer.ok().and_then(Result::ok).unwrap_or_default();
    answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"}")
}

/// The state of a social feed visible from outside.
async fn social_state(server: &Server, muted: &str) -> Vec<serde_json::Value> {
    let mut state = vec![server.get(&format!("/events/preferences/{muted}")).await.json()];
    let mut after = String::new();
    loop {
        let page = server.get(&format!("/events/followers/ada?{after}")).await.json();
        let next = page["next"].as_str().map(|next| format!("after={next}"));
        state.push(page["users"].clone());
        match next {
            Some(next) => after = next,
            None => return state,
        }
    }
}

/// `FANFARE_FEEDS` feeds, 100 by default, all open at the kill and again after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_followers_mutes_feeds_and_ids() {
    let directory = Directory::new("durable-social");
    let mut server = Server::launch(launch(&directory)).await;
    let count = number_of("FANFARE_FEEDS", 100);
    let followers: Vec<String> = (0..=count).map(|number| format!("user{number}")).collect();
    let (muted, listeners) = followers.split_last().expect("there is one more");
    social::follow_all(server.addr, &followers, "ada").await;
    social::mute(server.addr, muted, &["like"]).await;
    let mut feeds = Vec::new();
    for user in listeners {
        feeds.push(social::feed(server.addr, user).await);
    }
    let fan_out = json!({"author": "ada", "event": "like", "data": "one", "id": "first"});
    let first = social::fan_out(server.addr, fan_out.clone()).await;
    let own = json!({"topic": "own", "data": "x", "id": "mine"});
    let published = publish(server.addr, own.clone()).await;
    let mut ids = Vec::new();
    for feed in &mut feeds {
        assert_eq!(feed.next().await.data, "one");
        ids.push(feed.last_id().to_owned());
    }
    let before = social_state(&server, muted).await;

    server = server.restart().await;
    assert_eq!(social_state(&server, muted).await, before);
    assert_eq!(publish(server.addr, own).await["eventId"], published["eventId"]);
    // A repeat reaches nobody a second time.
    let again = social::fan_out(server.addr, fan_out).await;
    assert_eq!(again["mode"], first["mode"]);
    let mut feeds = Vec::new();
    for (user, id) in listeners.iter().zip(&ids) {
        feeds.push(social::resume_feed(server.addr, user, id).await);
    }
    let other = json!({"author": "ada", "event": "like", "data": "two"});
    social::fan_out(server.addr, other).await;
    for feed in &mut feeds {
        assert_eq!(feed.next().await.data, "two");
    }
    let mut quiet = social::whole_feed(server.addr, muted).await;
    let post = json!({"author": "ada", "event": "post", "data": "three"});
    social::fan_out(server.addr, post).await;
    assert_eq!(quiet.next().await.data, "three", "likes are muted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_hub_continues_its_sequences_and_a_killed_one_steps_them() {
    let directory = Directory::new("durable-steps");
    let mut server = Server::launch(launch(&directory)).await;
    let sequence = |answer: serde_json::Value| answer["sequence"].as_u64().expect("a number");
    let event = || json!({"topic": "steps", "data": "x"});
    let first = publish(server.addr, event()).await;
    let id = first["eventId"].as_str().expect("an id").to_owned();
    let first = sequence(first);
    server.terminate();
    server.wait_exit(Duration::from_secs(30)).await;
    server = server.restart().await;
    let second = sequence(publish(server.addr, event()).await);
    assert_eq!(second, first + 1, "a clean stop");
    server = server.restart().await;
    let third = sequence(publish(server.addr, event()).await);
    assert_eq!(third, second + (1 << 20) + 1, "an unclean stop");
    let headers = [("Last-Event-ID", &*id)];
    let mut stream = Stream::open(server.addr, "/events/stream?topic=steps", &headers).await;
    stream.read_connected().await;
    assert_eq!(stream.connected["resumed"], true);
    assert_eq!(stream.take_data(2).await, ["x", "x"]);
}

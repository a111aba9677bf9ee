//! The hand-over of state: an application reads the cursor, then its database (SQLite), and gives
//! both to its page. The page follows from the cursor, and ends equal to the database.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::Server;
use crate::support::{
    Stream,
    directory::Directory,
    http::{get, publish},
    wait::DEADLINE,
};

const ORDERS: i64 = 50;

/// The writer pauses after each phase, and all pages of the phase must be equal to the database.
const PHASES: i64 = 10;

const CHANGES_A_PHASE: i64 = 80;

const PAGES_A_PHASE: u64 = 10;

type Orders = BTreeMap<i64, i64>;

fn open(path: &PathBuf) -> Connection {
    let connection = Connection::open(path).expect("a database");
    connection.busy_timeout(DEADLINE).expect("a timeout");
    let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
        CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);";
    connection.execute_batch(schema).expect("the schema");
    connection
}

fn read(path: &PathBuf) -> Orders {
    let connection = open(path);
    let mut query = connection.prepare("SELECT id, version FROM orders").expect("a query");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.collect::<Result<_, _>>().expect("all rows")
}

/// Changes the database, then publishes each change with its absolute value.
async fn write(addr: SocketAddr, path: PathBuf, phase: i64, written: watch::Sender<i64>) {
    for version in phase * CHANGES_A_PHASE..(phase + 1) * CHANGES_A_PHASE {
        let id = (version * 7919) % ORDERS;
        let path = path.clone();
        spawn_blocking(move || {
            let sql = "INSERT INTO orders VALUES (?1, ?2)
                ON CONFLICT (id) DO UPDATE SET version = excluded.version";
            open(&path).execute(sql, params![id, version]).expect("a change");
        })
        .await
        .expect("a change");
        let topic = format!("orders:{}", id % 5);
        publish(addr, json!({"topic": topic, "data": {"id": id, "version": version}})).await;
        written.send_modify(|count| *count += 1);
    }
}

/// One page: loaded at any moment, cut at any moment, until all is written. Checks its state
/// against the database.
async fn page(addr: SocketAddr, path: PathBuf, number: u64, mut done: watch::Receiver<bool>) {
    let answer = get(addr, "/events/cursor?topic=orders:*").await.json();
    let mut id = answer["cursor"].as_str().expect("a cursor").to_owned();
    let own = path.clone();
    let mut orders = spawn_blocking(move || read(&own)).await.expect("a read");
    let mut round = 0;
    loop {
        let is_done = *done.borrow_and_update();
        let time = match is_done {
            true => Duration::from_millis(500),
            false => Duration::from_millis(5 + (number * 31 + round * 17) % 90),
        };
        round += 1;
        let followed = timeout(time, async {
            let mut stream = Stream::resume(addr, "topic=orders:*", &id).await;
            while let Some(event) = stream.read_event().await {
                assert_ne!(event.event, "gap", "{event:?}");
                let data = event.json();
                let number = |name: &str| data[name].as_i64().expect("a number");
                let order = orders.entry(number("id")).or_insert(-1);
                *order = number("version");
                id.clone_from(&event.id);
            }
        });
        let _ = followed.await;
        if is_done {
            let own = path.clone();
            let expected = spawn_blocking(move || read(&own)).await.expect("a read");
            if orders == expected {
                return;
            }
            assert!(round < 100, "{orders:?} is not {expected:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_equal_to_the_database() {
    let server = Server::start(&["--no-demo"]).await;
    let directory = Directory::new("hand-over");
    let path = directory.path().join("orders.sqlite");
    read(&path);
    for phase in 0..PHASES {
        let (done, is_done) = watch::channel(false);
        let (written, mut progress) = watch::channel(0);
        let writer = tokio::spawn(write(server.addr, path.clone(), phase, written));
        let mut pages = Vec::new();
        for number in 0..PAGES_A_PHASE {
            pages.push(tokio::spawn(page(server.addr, path.clone(), number, is_done.clone())));
            // Loads spread over the whole writing.
            let due = (number as i64 + 1) * CHANGES_A_PHASE / (PAGES_A_PHASE as i64 + 1);
            progress.wait_for(|count| *count >= due).await.expect("the writer goes on");
        }
        writer.await.expect("all changes");
        done.send(true).expect("pages listen");
        for page in pages {
            page.await.expect("a page equal to the database");
        }
    }
    let last: Value = json!(read(&path).values().max());
    assert_eq!(last, json!(PHASES * CHANGES_A_PHASE - 1));
}

//! A thousand streams under load, a part of them cut again and again: nothing is lost, nothing
//! comes twice, nothing out of order.

use std::sync::Arc;

use rand::RngExt;
use serde_json::Value;

use crate::support::{
    Server,
    crowd::{Crowd, Plan, Publisher, pace, seeded},
    heavy, repository,
};

const STREAM_COUNT: usize = 1000;

/// Every tenth stream is cut.
const CUT_EVERY: usize = 10;

/// Cuts of each such stream.
const CUT_COUNT: usize = 3;

/// Events per request, and requests per second: 2,000 events a second.
const EVENTS_PER_REQUEST: usize = 20;
const REQUESTS_PER_SECOND: u32 = 100;

/// The file is short: at this rate one round takes a quarter of a second.
const ROUND_COUNT: usize = 4;

/// A lower bound for an event's bytes in a stream, so every cut is reached.
const MIN_EVENT_BYTES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_get_the_whole_file_once_and_in_order_while_a_tenth_is_cut() {
    let _heavy = heavy().await;
    let server = Server::start(&["--no-demo"]).await;
    let rows = rows();
    let symbols = symbols(&rows);
    let streams = Crowd::start(server.addr, plans(&rows, &symbols));
    streams.until_connected(1).await;

    let mut publisher = Publisher::connect(server.addr).await;
    let mut pace = pace(REQUESTS_PER_SECOND);
    let all: Vec<&(String, String)> = rows.iter().cycle().take(rows.len() * ROUND_COUNT).collect();
    for rows in all.chunks(EVENTS_PER_REQUEST) {
        pace.tick().await;
        let events = rows.iter().map(|(symbol, row)| {
            let lane = symbols.iter().position(|other| other == symbol).expect("of this file");
            publisher.next(lane, &format!("ticker:{symbol}"), row)
        });
        let events = Value::Array(events.collect());
        publisher.send(&events).await;
    }

    for lane in 0..symbols.len() {
        streams.until_number(lane, publisher.last(lane)).await;
    }
    for lane in 0..symbols.len() {
        streams.assert_whole(lane, publisher.last(lane));
    }
    streams.assert_only_cut();
    for (index, ledger) in streams.ledgers().enumerate() {
        let is_cut = index % CUT_EVERY == 0;
        assert_eq!(ledger.ends.len(), if is_cut { CUT_COUNT } else { 0 }, "stream {index}");
        assert_eq!(ledger.gaps, [], "stream {index}");
    }
    drop(streams);
    server.settled().await;
}

fn plans(rows: &[(String, String)], symbols: &[String]) -> Vec<Plan> {
    let mut random = seeded();
    let of = |symbol: &String| {
        let rows = rows.iter().filter(|(other, _)| other == symbol);
        rows.map(|(_, row)| row.clone()).collect()
    };
    let topics: Vec<String> = symbols.iter().map(|symbol| format!("ticker:{symbol}")).collect();
    let plan = Plan {
        query: format!("topics={}", topics.join(",")),
        texts: Arc::new(symbols.iter().map(of).collect()),
        ..Plan::default()
    };
    let max_bytes = rows.len() * ROUND_COUNT * MIN_EVENT_BYTES / CUT_COUNT;
    let plans = (0..STREAM_COUNT).map(|index| {
        let count = if index % CUT_EVERY == 0 { CUT_COUNT } else { 0 };
        let cuts = (0..count).map(|_| random.random_range(0..max_bytes)).collect();
        Plan { cuts, ..plan.clone() }
    });
    plans.collect()
}

/// Symbol and whole row, in the file's order.
fn rows() -> Vec<(String, String)> {
    let path = repository().join("examples/data/stocks.csv");
    let text = std::fs::read_to_string(path).expect("the file is there");
    let rows = text.lines().skip(1).map(|row| {
        let (symbol, _) = row.split_once(',').expect("a row has three columns");
        (symbol.to_owned(), row.to_owned())
    });
    rows.collect()
}

fn symbols(rows: &[(String, String)]) -> Vec<String> {
    let mut symbols: Vec<String> = rows.iter().map(|(symbol, _)| symbol.clone()).collect();
    symbols.dedup();
    assert_eq!(symbols.len(), 5, "{symbols:?}");
    symbols
}

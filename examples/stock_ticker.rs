//! A stock ticker with the library: real prices on one topic, conflated by symbol.
//!
//! `cargo run --example stock_ticker` (`-- --listen 127.0.0.1:0` for another port), then in another terminal `curl -N
//! 'http://127.0.0.1:8081/events/stream?topic=ticker&snapshot=true'`.
//!
//! The program publishes five hundred prices a second, like a real feed. A client gets at most one
//! price per symbol and tick, the newest. A late client begins with a snapshot.

use std::time::Duration;

use actix_web::App;
use fanfare::{
    Config, Event, Hub, Server,
    config::{Conflate, TopicPolicy},
};
use serde::Serialize;

/// Real month-end prices; `data/README.md` names the source.
const PRICES: &str = include_str!("data/stocks.csv");

#[derive(Debug, Serialize)]
struct Price<'a> {
    symbol: &'a str,
    date: &'a str,
    price: f64,
}

impl<'a> Price<'a> {
    /// Parses a line `symbol,date,price`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(',');
        let (symbol, date) = (fields.next()?, fields.next()?);
        Some(Self { symbol, date, price: fields.next()?.parse().ok()? })
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = TopicPolicy::new("ticker").conflate(Conflate::LatestByKey);
    let config = Config::default().topic(policy);
    let hub = Hub::start(config)?;
    actix_web::rt::spawn(publish(hub.clone()));

    // The streams have sockets of their own: `streams_at`. Stopping the server drains the hub.
    let routes = hub.clone();
    let app = move || App::new().configure(routes.routes("/events").streams());
    let listen = std::env::args().skip_while(|argument| argument != "--listen").nth(1);
    let server = Server::new(&hub, app)
        .streams_at("/events/stream")
        .bind(listen.as_deref().unwrap_or("127.0.0.1:8081"))?;
    for address in server.addrs() {
        println!("curl -N 'http://{address}/events/stream?topic=ticker&snapshot=true'");
    }
    Ok(server.run()?.await?)
}

/// Publishes all prices in an endless loop.
async fn publish(hub: Hub) -> Result<(), Box<dyn std::error::Error>> {
    let mut interval = tokio::time::interval(Duration::from_millis(2));
    for price in PRICES.lines().skip(1).filter_map(Price::parse).cycle() {
        interval.tick().await;
        hub.publish("ticker", Event::json(&price)?.event_type("price").key(price.symbol)).await?;
    }
    Ok(())
}

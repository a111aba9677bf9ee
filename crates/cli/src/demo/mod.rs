//! The page at `/`: the demo with the publisher of its data, or the landing page of a hub without it.

mod market;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::{
    HttpResponse, guard,
    http::header::CONTENT_TYPE,
    web::{self, ServiceConfig},
};
use fanfare::{Event, Hub, PublishError, config::TopicPolicy};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

/// Real month-end prices; `examples/data/README.md` names their source.
const PRICES: &str = include_str!("../../../../examples/data/stocks.csv");

/// Ten events per second: the page visibly moves, and a pass over the data takes a minute.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// More than the events of a symbol in one pass, so the page's charts fill at once.
const HISTORY_EVENTS: usize = 125;

/// Prices published at once at the start: the first five years, so the page's charts of all five
/// symbols start with data.
const HEAD_START: usize = 250;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A file of the built package `clients/js`; a test compares it with a new build.
macro_rules! client_file {
    ($name:literal) => {
        (
            concat!("/demo/client/", $name, ".js"),
            "text/javascript; charset=utf-8",
            include_str!(concat!("client/", $name, ".js")),
        )
    };
}

const HTML: &str = "text/html; charset=utf-8";

/// The page of a hub with the demo's data, and of any other hub.
const DEMO_PAGE: &str = include_str!("index.html");
const LANDING_PAGE: &str = include_str!("landing.html");

/// Path, content type and text of each file of the pages.
const FILES: [(&str, &str, &str); 12] = [
    ("/demo/landing.js", "text/javascript; charset=utf-8", include_str!("landing.js")),
    ("/demo/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/demo/app.js", "text/javascript; charset=utf-8", include_str!("app.js")),
    ("/demo/delivery.js", "text/javascript; charset=utf-8", include_str!("delivery.js")),
    ("/demo/heatmap.js", "text/javascript; charset=utf-8", include_str!("heatmap.js")),
    ("/demo/chart.js", "text/javascript; charset=utf-8", include_str!("chart.js")),
    ("/demo/status.js", "text/javascript; charset=utf-8", include_str!("status.js")),
    client_file!("index"),
    client_file!("tabs"),
    client_file!("state"),
    client_file!("publish"),
    client_file!("fallback"),
];

/// The routes of the page at `/` and of its files.
pub(crate) fn pages(has_demo_data: bool) -> impl FnOnce(&mut ServiceConfig) {
    let page = if has_demo_data { DEMO_PAGE } else { LANDING_PAGE };
    move |config| {
        for (path, content_type, text) in [("/", HTML, page)].into_iter().chain(FILES) {
            let get = web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
            config.route(path, get.to(move || async move { file(content_type, text) }));
        }
        // The page has no icon; browsers ask for one.
        config.route("/favicon.ico", web::get().to(HttpResponse::NoContent));
    }
}

fn file(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header(("Content-Security-Policy", "default-src 'self'"))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        // A new version of the server brings a new page.
        .insert_header(("Cache-Control", "no-cache"))
        .body(text)
}

/// The policies of the demo topics.
pub(crate) fn policies() -> [TopicPolicy; 2] {
    [ticker_policy(), market::policy()]
}

/// The history holds one pass of prices for new streams.
fn ticker_policy() -> TopicPolicy {
    TopicPolicy::new("demo:ticker:*").history_events(HISTORY_EVENTS)
}

#[derive(Debug, Clone, Serialize)]
struct DemoPrice {
    symbol: &'static str,
    date: &'static str,
    price: f64,
    /// Time of the publish, in milliseconds since 1970.
    at: u64,
}

/// Publishes the demo's data until the hub drains.
pub(crate) async fn publish(hub: Hub) {
    tokio::join!(publish_prices(hub.clone()), market::publish(hub));
}

/// Publishes the prices by month, in a loop, until the hub drains.
async fn publish_prices(hub: Hub) {
    let prices = prices();
    let mut interval = tokio::time::interval(PUBLISH_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (number, price) in prices.iter().cycle().enumerate() {
        if number >= HEAD_START {
            interval.tick().await;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let price = DemoPrice { at: since_1970.as_millis() as u64, ..price.clone() };
        let topic = format!("demo:ticker:{}", price.symbol);
        let event = Event::json(&price).map(|event| event.event_type("price").key(price.symbol));
        let Ok(event) = event else { continue };
        match hub.publish(topic, event).await {
            Ok(_) => {}
            Err(PublishError::Draining) => return,
            Err(error) => tracing::debug!(%error, "demo data not published"),
        }
    }
}

/// The prices in order of their month.
fn prices() -> Vec<DemoPrice> {
    let mut rows: Vec<_> = PRICES.lines().skip(1).filter_map(price).collect();
    rows.sort_by_key(|(month, _)| *month);
    rows.into_iter().map(|(_, price)| price).collect()
}

/// Parses a row `symbol,Mon D YYYY,price`. The first value sorts the rows by month.
fn price(row: &'static str) -> Option<((u32, usize), DemoPrice)> {
    let mut fields = row.split(',');
    let (symbol, date, price) = (fields.next()?, fields.next()?, fields.next()?);
    let mut words = date.split(' ');
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year = words.nth(1)?.parse().ok()?;
    Some(((year, month), DemoPrice { symbol, date, price: price.parse().ok()?, at: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_in_the_order_of_time() {
        let prices = prices();
        assert_eq!(prices.len(), PRICES.lines().count() - 1);
        assert_eq!((prices[0].date, prices[0].symbol), ("Jan 1 2000", "MSFT"));
        assert_eq!(prices[prices.len() - 1].date, "Mar 1 2010");
    }
}

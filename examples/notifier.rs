//! An application written from the README: a login, each user's own notifications, prices for
//! everybody, and publishing. The guide's page "An application, line by line" explains it.

use std::{collections::HashMap, sync::Mutex};

use actix_web::web::{self, Data, Json, Path, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Result};
use actix_web::{cookie::Cookie, error::ErrorUnauthorized};
use fanfare::config::{Conflate, TopicPolicy};
use fanfare::{Config, Hub, StartError, Subscription, Topic, Topics};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Note {
    from: String,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Price {
    symbol: String,
    price: f64,
}

const NOTES: Topics<Note> = Topics::new("notifications").event_type("note");
const TICKER: &str = "ticker";

/// Session token to user. A real application stores this in its database.
type Sessions = Data<Mutex<HashMap<String, String>>>;

/// The user of the request's session.
fn user_of(request: &HttpRequest, sessions: &Sessions) -> Result<String> {
    let cookie = request.cookie("session");
    let user = cookie.and_then(|it| sessions.lock().ok()?.get(it.value()).cloned());
    user.ok_or_else(|| ErrorUnauthorized("log in first"))
}

async fn log_in(name: String, sessions: Sessions) -> HttpResponse {
    let token = format!("{:032x}", rand::random::<u128>());
    sessions.lock().expect("no holder panics").insert(token.clone(), name);
    let cookie = Cookie::build("session", token).http_only(true).finish();
    HttpResponse::NoContent().cookie(cookie).finish()
}

async fn my_notes(hub: Hub, sessions: Sessions, request: HttpRequest) -> Result<HttpResponse> {
    let user = user_of(&request, &sessions)?;
    Ok(hub.stream(&request, Subscription::new().topic(&NOTES.of(user))))
}

async fn ticker(hub: Hub, request: HttpRequest) -> HttpResponse {
    hub.stream(&request, Subscription::new().topic(TICKER).snapshot())
}

type Notify = (Hub, Sessions, HttpRequest, Path<String>, String);

async fn notify((hub, sessions, request, to, text): Notify) -> Result<String> {
    let note = Note { from: user_of(&request, &sessions)?, text };
    Ok(NOTES.of(to.as_str()).publish(&hub, &note).await?.event_id)
}

type Quote = (Hub, Sessions, HttpRequest, Json<Price>);

async fn quote((hub, sessions, request, price): Quote) -> Result<String> {
    user_of(&request, &sessions)?;
    let event = Topic::new(TICKER).event_type("price").event(&price.0)?.key(&price.symbol);
    Ok(hub.publish(TICKER, event).await?.event_id)
}

fn start() -> std::result::Result<Hub, StartError> {
    let ticker = TopicPolicy::new(TICKER).conflate(Conflate::LatestByKey);
    Hub::start(Config::default().topic(ticker))
}

fn routes(app: &mut ServiceConfig, hub: &Hub, sessions: &Sessions) {
    app.app_data(Data::new(hub.clone())).app_data(sessions.clone());
    app.route("/login", web::post().to(log_in)).route("/me", web::get().to(my_notes));
    app.route("/ticker", web::get().to(ticker)).route("/ticker", web::post().to(quote));
    app.route("/notify/{user}", web::post().to(notify));
}

#[actix_web::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (hub, sessions) = (start()?, Sessions::default());
    let app_hub = hub.clone();
    let app = move || App::new().configure(|app| routes(app, &app_hub, &sessions));
    Ok(hub.attach(HttpServer::new(app)).bind("127.0.0.1:8084")?.run().await?)
}

#[cfg(test)]
mod tests {
    use actix_web::test::{TestRequest, call_service, init_service};
    use fanfare::testing::EventStream;

    use super::*;

    #[actix_web::test]
    async fn users_get_their_own_notes_and_everybody_the_newest_prices() {
        let (hub, sessions) = (start().unwrap(), Sessions::default());
        let app = init_service(App::new().configure(|app| routes(app, &hub, &sessions))).await;
        let send = async |request: TestRequest| call_service(&app, request.to_request()).await;
        assert_eq!(send(TestRequest::get().uri("/me")).await.status(), 401);

        let login = send(TestRequest::post().uri("/login").set_payload("ada")).await;
        let session = login.response().cookies().next().unwrap().into_owned();
        let as_ada = |request: TestRequest| request.cookie(session.clone());
        let mut notes = EventStream::open(send(as_ada(TestRequest::get().uri("/me"))).await).await;
        for (to, text) in [("bob", "not for ada"), ("ada", "hello")] {
            let note = TestRequest::post().uri(&format!("/notify/{to}")).set_payload(text);
            assert_eq!(send(as_ada(note)).await.status(), 200);
        }
        assert_eq!(notes.next().await.json::<Note>().text, "hello");

        for price in [1.0, 2.0] {
            let quote = Price { symbol: "GOOG".to_owned(), price };
            send(as_ada(TestRequest::post().uri("/ticker").set_json(quote))).await;
        }
        let mut prices = EventStream::open(send(TestRequest::get().uri("/ticker")).await).await;
        assert_eq!(prices.next_of("price").await.json::<Price>().price, 2.0, "only the newest");
    }
}

//! An application with its own login. Each user has a stream of the own topic only.
//!
//! `cargo run --example embed`, then open <http://127.0.0.1:8082/> in two browsers, log in as two
//! users, and let one notify the other.
//!
//! The hub has no endpoint here except `/me`. `my_stream` decides the topics of a user, `notify`
//! publishes.

use std::{collections::HashMap, sync::Mutex};

use actix_web::{
    App, FromRequest, HttpRequest, HttpResponse, HttpServer, Responder,
    cookie::{Cookie, SameSite},
    dev::Payload,
    error::ErrorUnauthorized,
    web::{self, Data, Form, Path},
};
use fanfare::{Config, Event, Hub, Subscription};
use serde::{Deserialize, Serialize};

/// Session token to user name. A real application stores this in its database.
type Sessions = Data<Mutex<HashMap<String, String>>>;

/// The sender of the request, by the cookie from the login.
struct User {
    name: String,
}

impl FromRequest for User {
    type Error = actix_web::Error;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let find = || {
            let cookie = request.cookie("session")?;
            let sessions = request.app_data::<Sessions>()?.lock().ok()?;
            sessions.get(cookie.value()).map(|name| Self { name: name.clone() })
        };
        std::future::ready(find().ok_or_else(|| ErrorUnauthorized("log in first")))
    }
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

#[derive(Deserialize)]
struct Note {
    text: String,
}

#[derive(Serialize)]
struct Notification<'a> {
    from: &'a str,
    text: &'a str,
}

async fn log_in(login: Form<Login>, sessions: Sessions) -> impl Responder {
    let token = format!("{:032x}", rand::random::<u128>());
    let mut sessions = sessions.lock().expect("no holder panics");
    sessions.insert(token.clone(), login.into_inner().name);
    let cookie = Cookie::build("session", token).http_only(true).same_site(SameSite::Strict);
    HttpResponse::SeeOther().insert_header(("Location", "/")).cookie(cookie.finish()).finish()
}

/// The user's own stream. Topics in the query are ignored.
async fn my_stream(hub: Data<Hub>, user: User, request: HttpRequest) -> impl Responder {
    hub.stream(&request, Subscription::new().topic(topic(&user.name)))
}

async fn notify(
    hub: Data<Hub>,
    user: User,
    to: Path<String>,
    note: Form<Note>,
) -> Result<impl Responder, actix_web::Error> {
    let notification = Notification { from: &user.name, text: &note.text };
    let event = Event::json(&notification)?.event_type("notification");
    let published = hub.publish(topic(&to), event).await;
    published.map_err(actix_web::error::ErrorServiceUnavailable)?;
    Ok(HttpResponse::NoContent())
}

/// Topic of a user. The name is in hexadecimal, so no name can form another user's topic.
fn topic(name: &str) -> String {
    let hexadecimal: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("notifications:{hexadecimal}")
}

async fn page() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("embed.html"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Data::new(Hub::start(Config::default())?);
    let sessions = Sessions::default();
    let app_hub = hub.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(app_hub.clone())
            .app_data(sessions.clone())
            .route("/", web::get().to(page))
            .route("/login", web::post().to(log_in))
            .route("/me", web::get().to(my_stream))
            .route("/notify/{name}", web::post().to(notify))
    });
    // With `attach`, a stop ends all streams with `shutdown`.
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8082".to_owned());
    let server = hub.attach(server).bind(address)?;
    println!("open http://{}/", server.addrs()[0]);
    Ok(server.run().await?)
}

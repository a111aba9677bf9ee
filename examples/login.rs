//! An application with a real login (actix-session): each user's own notifications, a logout ending
//! the user's streams, and a list of the users online.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use actix_session::{Session, SessionMiddleware, storage::CookieSessionStore};
use actix_web::web::{self, Data, Form, Json, ServiceConfig};
use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, Result, cookie::Key, error::ErrorUnauthorized,
};
use fanfare::{
    Config, Event, Hub, ShutdownReason, StartError, StreamChange, StreamFilter, StreamReport,
    Subscription,
};
use serde::Deserialize;

/// A stream ends after this time: its client returns, and its session is checked again.
const CHECK_AGAIN: Duration = Duration::from_secs(3600);

/// Open streams of each user.
type Online = Data<Mutex<BTreeMap<String, usize>>>;

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

/// A real application asks its database.
fn is_password(login: &Login) -> bool {
    !login.user.is_empty() && login.password == format!("{}'s password", login.user)
}

fn user_of(session: &Session) -> Result<String> {
    session.get::<String>("user")?.ok_or_else(|| ErrorUnauthorized("log in first"))
}

async fn log_in(login: Form<Login>, session: Session) -> Result<HttpResponse> {
    if !is_password(&login) {
        return Err(ErrorUnauthorized("wrong name or password"));
    }
    session.renew();
    session.insert("user", &login.user)?;
    Ok(HttpResponse::NoContent().finish())
}

async fn my_notes(hub: Hub, session: Session, request: HttpRequest) -> Result<HttpResponse> {
    let user = user_of(&session)?;
    let mine = Subscription::new().topic(format!("notifications:{user}"));
    // The user, so the logout finds the stream.
    let mine = mine.user(user).until(SystemTime::now() + CHECK_AGAIN);
    Ok(hub.stream(&request, mine))
}

async fn log_out(hub: Hub, session: Session) -> Result<HttpResponse> {
    let user = user_of(&session)?;
    session.purge();
    let streams = StreamFilter::all().user(user);
    hub.end_streams(streams, ShutdownReason::Revoked).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn notify(hub: Hub, session: Session, to: web::Path<String>, text: String) -> Result<String> {
    let note = Event::text(format!("{}: {text}", user_of(&session)?));
    Ok(hub.publish(&format!("notifications:{to}"), note).await?.event_id)
}

async fn online(all: Online) -> Json<Vec<String>> {
    Json(all.lock().expect("no holder panics").keys().cloned().collect())
}

/// Keeps the application's own record of streams.
fn note(online: &Online, report: StreamReport) {
    let Some(user) = report.stream.user else { return };
    let mut online = online.lock().expect("no holder panics");
    let count = online.entry(user.clone()).or_default();
    match report.change {
        StreamChange::Opened => *count += 1,
        _ => *count = count.saturating_sub(1),
    }
    if *count == 0 {
        online.remove(&user);
    }
}

fn start(online: &Online) -> std::result::Result<Hub, StartError> {
    let online = online.clone();
    Hub::builder(Config::default()).on_stream(move |report| note(&online, report)).start()
}

/// The key signs and encrypts the session's cookie. With several instances, all have the same one.
fn sessions(key: &Key) -> SessionMiddleware<CookieSessionStore> {
    SessionMiddleware::builder(CookieSessionStore::default(), key.clone())
        // For an application behind TLS: true.
        .cookie_secure(false)
        .build()
}

fn routes(app: &mut ServiceConfig, hub: &Hub, online_users: &Online) {
    app.app_data(Data::new(hub.clone())).app_data(online_users.clone());
    app.route("/login", web::post().to(log_in)).route("/logout", web::post().to(log_out));
    app.route("/me", web::get().to(my_notes)).route("/online", web::get().to(online));
    app.route("/notify/{user}", web::post().to(notify));
}

#[actix_web::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (key, online) = (Arc::new(Key::generate()), Online::default());
    let hub = start(&online)?;
    let app_hub = hub.clone();
    let app =
        move || App::new().wrap(sessions(&key)).configure(|app| routes(app, &app_hub, &online));
    Ok(hub.attach(HttpServer::new(app)).bind("127.0.0.1:8085")?.run().await?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use actix_web::{
        dev::ServiceResponse,
        test::{TestRequest, call_service, init_service, read_body_json},
    };
    use fanfare::testing::EventStream;

    use super::*;

    #[actix_web::test]
    async fn a_login_opens_the_user_s_notes_and_a_logout_ends_them() {
        let (key, online) = (Key::generate(), Online::default());
        let hub = start(&online).unwrap();
        let app = App::new().wrap(sessions(&key)).configure(|app| routes(app, &hub, &online));
        let app = init_service(app).await;
        let send = async |request: TestRequest| -> ServiceResponse {
            call_service(&app, request.to_request()).await.map_into_boxed_body()
        };
        let log_in = async |user: &str, password: &str| {
            let form = [("user", user), ("password", password)];
            send(TestRequest::post().uri("/login").set_form(form)).await
        };
        let me = || TestRequest::get().uri("/me");
        assert_eq!(send(me()).await.status(), 401);
        assert_eq!(log_in("ada", "wrong").await.status(), 401);
        let session =
            |login: ServiceResponse| login.response().cookies().next().unwrap().into_owned();
        let ada = session(log_in("ada", "ada's password").await);
        let bob = session(log_in("bob", "bob's password").await);
        let mut notes = EventStream::open(send(me().cookie(ada.clone())).await).await;
        let to_ada = TestRequest::post().uri("/notify/ada").set_payload("hello");
        assert_eq!(send(to_ada.cookie(bob.clone())).await.status(), 200);
        assert_eq!(notes.next().await.data, "bob: hello");

        // The record follows the streams soon.
        let until_online = async |wanted: &[&str]| {
            let began = Instant::now();
            loop {
                let answer = send(TestRequest::get().uri("/online")).await;
                let users: Vec<String> = read_body_json(answer).await;
                if users == wanted {
                    return;
                }
                assert!(began.elapsed() < Duration::from_secs(10), "{users:?} are online");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        until_online(&["ada"]).await;
        let logout = TestRequest::post().uri("/logout").cookie(ada);
        let (ended, answer) = tokio::join!(notes.next(), send(logout));
        assert_eq!((answer.status().as_u16(), ended.event.as_str()), (204, "shutdown"));
        drop(notes);
        until_online(&[]).await;
    }
}

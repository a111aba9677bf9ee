//! The first program of the README and of the guide.

use actix_web::{App, HttpRequest, HttpServer, Responder, web};
use fanfare::{Config, Event, Hub, Subscription};

async fn my_stream(hub: Hub, request: HttpRequest) -> impl Responder {
    // Your own login decides the topics of a user. The hub takes care of resuming.
    hub.stream(&request, Subscription::new().topic("notifications:42"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::start(Config::default())?;
    let app = || App::new().route("/me", web::get().to(my_stream));
    let server = hub.attach(HttpServer::new(app)).bind("127.0.0.1:8080")?.run();
    hub.publish("notifications:42", Event::json(&"hello")?).await?;
    Ok(server.await?)
}

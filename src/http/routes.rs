//! Mounting the hub's endpoints in an application: only the groups named by the caller.

use std::cell::Cell;

use actix_web::web::{Data, ServiceConfig};

use super::{follows, health, publishing, revocations, statistics, streams};
use crate::hub::Hub;

/// The endpoints of a hub, from [`Hub::routes`], for [`actix_web::App::configure`]. It mounts
/// nothing until a group is named; each method names one.
///
/// ```
/// # use fanfare::Hub;
/// # fn mount(app: &mut actix_web::web::ServiceConfig, hub: &Hub) {
/// app.configure(hub.routes("/events").streams().publishing());
/// # }
/// ```
///
/// No endpoint checks a login unless access control is configured.
pub type Routes = Box<dyn Mount>;

/// The function behind [`Routes`]. `configure` takes functions only, and a struct cannot be one:
/// its implementation of `FnOnce` is unstable.
pub trait Mount: FnOnce(&mut ServiceConfig) + Send {}

impl<F: FnOnce(&mut ServiceConfig) + Send> Mount for F {}

/// A group of endpoints.
type Group = fn(&mut ServiceConfig, &Hub, &str);

/// Which groups to mount, one flag for each of [`GROUPS`].
type Named = [bool; GROUPS.len()];

const GROUPS: [Group; 6] = [streams, publishing, follows, health, statistics, revocations];

thread_local! {
    /// Groups named after [`Hub::routes`], on their way to its function, the innermost one. That
    /// function takes them out again.
    static NAMED: Cell<Named> = const { Cell::new([false; GROUPS.len()]) };
}

impl dyn Mount {
    /// The endpoints of subscribers: `GET`, `HEAD` and `POST /stream`, the same of `/poll`, `GET
    /// /cursor`, changes of an open stream's topics, and the status of a topic.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn streams(self: Box<Self>) -> Routes {
        self.and(0)
    }

    /// `POST /publish`.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn publishing(self: Box<Self>) -> Routes {
        self.and(1)
    }

    /// Follows, followers, preferences, feeds and fan-outs.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn follows(self: Box<Self>) -> Routes {
        self.and(2)
    }

    /// `/health/live` and `/health/ready`.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn health(self: Box<Self>) -> Routes {
        self.and(3)
    }

    /// The endpoints of operators: those of `health`, `/stats` and `/metrics`.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn operations(self: Box<Self>) -> Routes {
        self.health().and(4)
    }

    /// `POST /revocations`, and `DELETE /streams/{clientId}` to end one stream.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn revocations(self: Box<Self>) -> Routes {
        self.and(5)
    }

    /// Every endpoint: for an application reached by trusted clients only.
    #[must_use = "nothing is mounted until `App::configure`"]
    pub fn all(self: Box<Self>) -> Routes {
        self.streams().publishing().follows().operations().revocations()
    }

    fn and(self: Box<Self>, group: usize) -> Routes {
        Box::new(move |config: &mut ServiceConfig| {
            let mut named = NAMED.get();
            named[group] = true;
            NAMED.set(named);
            self(config);
        })
    }
}

/// The innermost function: it registers the hub for handlers, and mounts the named groups.
pub(super) fn of(hub: Hub, prefix: &str) -> Routes {
    let prefix = prefix.trim_end_matches('/').to_owned();
    Box::new(move |config: &mut ServiceConfig| {
        let groups = GROUPS.iter().zip(NAMED.take());
        groups
            .filter(|(_, is_named)| *is_named)
            .for_each(|(mount, _)| mount(config, &hub, &prefix));
        config.app_data(Data::new(hub));
    })
}

//! An application with the follow graph in its own database, here SQLite. The hub uses this graph.
//!
//! `cargo run --example sqlite_graph`, then
//!
//! ```sh
//! curl -X PUT http://127.0.0.1:8083/events/follows/ann/bob
//! curl http://127.0.0.1:8083/events/followers/bob
//! curl http://127.0.0.1:8083/most-followed
//! ```
//!
//! The follows are in `followers.sqlite`, also after a restart. `cargo test --example sqlite_graph`
//! checks the graph against the hub's requirements.

use std::{path::Path, sync::Arc, thread};

use actix_web::{
    App, HttpServer, Responder,
    error::ErrorServiceUnavailable,
    web::{self, Data, Json},
};
use fanfare::{
    Config, Hub,
    follow::{Counts, Follow, FollowGraph, GraphError, GraphFuture, Page, User},
};
use futures_util::FutureExt;
use rusqlite::{Connection, Transaction, params};
use tokio::sync::{mpsc, oneshot};

/// Most queued queries. Further queries wait for a free slot.
const MAX_WAITING: usize = 64;

/// Both directions are sorted by name, so a page begins behind the last name of the page before.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS follows (
        author TEXT NOT NULL,
        follower TEXT NOT NULL,
        PRIMARY KEY (author, follower)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX IF NOT EXISTS follows_of ON follows (follower, author);
";

/// A query or change, run on the database thread.
type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// A follow graph in SQLite. The connection blocks, so one thread owns it.
struct SqliteGraph {
    queue: mpsc::Sender<Work>,
}

impl SqliteGraph {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        let (queue, mut works) = mpsc::channel::<Work>(MAX_WAITING);
        // The thread ends with the last sender.
        thread::spawn(move || {
            while let Some(work) = works.blocking_recv() {
                work(&mut connection);
            }
        });
        Ok(Self { queue })
    }

    /// Runs `work` in a transaction and waits for its result.
    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> GraphFuture<'_, T> {
        async {
            let (tell, told) = oneshot::channel();
            let work: Work = Box::new(move |connection| {
                let result = connection.transaction().and_then(|transaction| {
                    let result = work(&transaction)?;
                    transaction.commit()?;
                    Ok(result)
                });
                // The caller may have dropped its future.
                let _ = tell.send(result);
            });
            self.queue.send(work).await.map_err(|_| gone())?;
            let result = told.await.map_err(|_| gone())?;
            result.map_err(|error| GraphError::Unavailable(error.into()))
        }
        .boxed()
    }

    /// Runs a statement for each edge; returns the number of changed rows.
    fn for_each(&self, sql: &'static str, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.with(move |transaction| {
            let mut statement = transaction.prepare_cached(sql)?;
            let mut count = 0;
            for Follow { follower, author } in &edges {
                count += statement.execute(params![author.as_str(), follower.as_str()])? as u64;
            }
            Ok(count)
        })
    }

    fn page(
        &self,
        sql: &'static str,
        user: User,
        after: Option<String>,
        limit: usize,
    ) -> GraphFuture<'_, Page> {
        async move {
            // The last name of the page before. Clients can send anything, so it is checked.
            let after = match after {
                None => String::new(),
                Some(after) if User::parse(&after).is_ok() => after,
                Some(_) => return Err(GraphError::BadPage),
            };
            let read = move |transaction: &Transaction<'_>| {
                let mut statement = transaction.prepare_cached(sql)?;
                // One row more than the page shows if there is a next page.
                let count = i64::try_from(limit + 1).unwrap_or(i64::MAX);
                let names = statement.query_map(params![user.as_str(), after, count], |row| {
                    row.get::<_, String>(0)
                })?;
                names.collect::<rusqlite::Result<Vec<String>>>()
            };
            let mut names = self.with(read).await?;
            let is_last = names.len() <= limit;
            names.truncate(limit);
            let next = names.last().filter(|_| !is_last).cloned();
            let users = names.iter().map(|name| User::parse(name));
            let users = users.collect::<Result<_, _>>();
            Ok(Page { users: users.map_err(|error| GraphError::Unavailable(error.into()))?, next })
        }
        .boxed()
    }

    /// The application's own query, not offered by the hub.
    async fn most_followed(&self) -> Result<Vec<(String, i64)>, GraphError> {
        let read = |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(
                "SELECT author, count(*) FROM follows GROUP BY author ORDER BY 2 DESC LIMIT 10",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        self.with(read).await
    }
}

fn gone() -> GraphError {
    GraphError::Unavailable("the database's thread has ended".into())
}

impl FollowGraph for SqliteGraph {
    fn follow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.for_each("INSERT OR IGNORE INTO follows (author, follower) VALUES (?1, ?2)", edges)
    }

    fn unfollow(&self, edges: Vec<Follow>) -> GraphFuture<'_, u64> {
        self.for_each("DELETE FROM follows WHERE author = ?1 AND follower = ?2", edges)
    }

    fn followers(
        &self,
        author: User,
        after: Option<String>,
        limit: usize,
    ) -> GraphFuture<'_, Page> {
        let sql = "SELECT follower FROM follows WHERE author = ?1 AND follower > ?2 \
                   ORDER BY follower LIMIT ?3";
        self.page(sql, author, after, limit)
    }

    fn following(&self, user: User, after: Option<String>, limit: usize) -> GraphFuture<'_, Page> {
        let sql = "SELECT author FROM follows WHERE follower = ?1 AND author > ?2 \
                   ORDER BY author LIMIT ?3";
        self.page(sql, user, after, limit)
    }

    fn counts(&self, user: User) -> GraphFuture<'_, Counts> {
        self.with(move |transaction| {
            let count = |sql: &str| {
                let mut statement = transaction.prepare_cached(sql)?;
                statement.query_row([user.as_str()], |row| row.get::<_, i64>(0))
            };
            let followers = count("SELECT count(*) FROM follows WHERE author = ?1")?;
            let following = count("SELECT count(*) FROM follows WHERE follower = ?1")?;
            Ok(Counts { followers: followers.unsigned_abs(), following: following.unsigned_abs() })
        })
    }
}

async fn most_followed(graph: Data<Arc<SqliteGraph>>) -> Result<impl Responder, actix_web::Error> {
    Ok(Json(graph.most_followed().await.map_err(ErrorServiceUnavailable)?))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = Arc::new(SqliteGraph::open(Path::new("followers.sqlite"))?);
    let hub = Hub::builder(Config::default()).follow_graph(graph.clone()).start()?;
    let routes = hub.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(graph.clone()))
            .configure(routes.routes("/events").all())
            .route("/most-followed", web::get().to(most_followed))
    });
    println!("listening on http://127.0.0.1:8083/");
    Ok(hub.attach(server).bind("127.0.0.1:8083")?.run().await?)
}

#[cfg(test)]
mod tests {
    use fanfare::follow::contract;

    use super::*;

    /// A database for one test, removed on drop.
    struct Database {
        folder: std::path::PathBuf,
    }

    impl Database {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("the temporary directory takes files");
            Self { folder }
        }

        fn open(&self) -> SqliteGraph {
            SqliteGraph::open(&self.folder.join("followers.sqlite")).expect("it opens")
        }
    }

    impl Drop for Database {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[actix_web::test]
    async fn the_graph_in_sqlite_keeps_every_promise() {
        let database = Database::new("fanfare-contract");
        contract::graph(&database.open()).await;
    }

    #[actix_web::test]
    async fn the_hub_asks_it_and_it_outlives_the_hub() {
        let database = Database::new("fanfare-restart");
        for is_new in [true, false] {
            let hub = Hub::builder(Config::default()).follow_graph(database.open());
            let hub = hub.start().expect("the defaults are valid");
            assert_eq!(hub.follow("ann", "bob").await.expect("it answers"), is_new);
            let page = hub.followers("bob", None, 10).await.expect("it answers");
            assert_eq!(page.users, [User::parse("ann").expect("a name")]);
        }
        let most = database.open().most_followed().await.expect("it answers");
        assert_eq!(most, [("bob".to_owned(), 1)]);
    }
}

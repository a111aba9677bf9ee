//! Settings required to be equal on all instances of a cluster.

use std::process::{Command, Stdio};

use crate::support::{
    Instances, RedisServer, Stream,
    ports::free_port,
    process::signal,
    redis::{Options, REDIS_DEADLINE},
    until,
};

const OTHER_HISTORY: (&str, &str) = ("FANFARE__HISTORY__EVENTS", "7");
const OTHER_PARTITIONS: (&str, &str) = ("FANFARE__HUB__PARTITIONS", "8");

/// Runs `fanfare serve` to its end. Returns its exit code and its complaint.
async fn refused(redis: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(["serve", "--redis", redis, "--listen", &listen]);
    command.envs(environment.iter().copied()).env("RUST_LOG", "off");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let pid = child.id();
    let ended = until(REDIS_DEADLINE, "the command ends", async || {
        child.try_wait().expect("it is our child").is_some()
    });
    let guard = KillOnDrop(pid);
    ended.await;
    std::mem::forget(guard);
    let output = child.wait_with_output().expect("it has ended");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

/// Kills a process left running by a failed test.
struct KillOnDrop(u32);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        signal(self.0, "KILL");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_with_another_number_of_partitions_is_refused_with_both_numbers() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let (code, complaint) = refused(&redis.url(), &[OTHER_PARTITIONS]).await;
    assert_eq!(code, Some(2), "{complaint}");
    for part in ["hub.partitions", "`16`", "`8`"] {
        assert!(complaint.contains(part), "{complaint}");
    }
    // Also alone: the keys in Redis belong to 16 partitions.
    drop(instances);
    let (code, complaint) = refused(&redis.url(), &[OTHER_PARTITIONS]).await;
    assert_eq!(code, Some(2), "{complaint}");
    Instances::start(&[redis.url()], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_policies_are_refused_beside_other_instances_and_accepted_alone() {
    let redis = RedisServer::start(Options::default()).await;
    let instances = Instances::start(&[redis.url(), redis.url()], &[]).await;
    let (code, complaint) = refused(&redis.url(), &[OTHER_HISTORY]).await;
    assert_eq!(code, Some(2), "{complaint}");
    for part in ["topic policies", "1000 events", "7 events"] {
        assert!(complaint.contains(part), "{complaint}");
    }
    drop(instances);
    let changed = Instances::start(&[redis.url()], &[("history.events", "7")]).await;
    let (code, _) = refused(&redis.url(), &[]).await;
    assert_eq!(code, Some(2), "the former value is the different one now");
    assert!(changed.servers[0].is_ready().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_learns_of_other_settings_later_is_unready_and_says_why() {
    let redis = RedisServer::start(Options::default()).await;
    let old = Instances::start(&[redis.url()], &[]).await;
    let stream = Stream::subscribe(old.addr(0), "topic=a").await;
    redis.command(&["HSET", "fanfare:{3}:cluster", "hub.partitions", "4"]).await;
    old.until_not_ready().await;
    let told = old.servers[0].get("/health/ready").await.json();
    assert_eq!(told["status"], "settings_differ");
    let message = told["message"].as_str().expect("a text");
    assert!(message.contains("`4`") && message.contains("`16`"), "{message}");
    assert_eq!(old.servers[0].stats().await["bridge"]["conflict"]["stored"], "4");
    // The open stream stays, as during any outage.
    assert_eq!(old.servers[0].stats().await["connections"], 1);
    redis.command(&["HSET", "fanfare:{3}:cluster", "hub.partitions", "16"]).await;
    old.until_ready().await;
    drop(stream);
}

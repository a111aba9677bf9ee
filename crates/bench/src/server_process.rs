//! Memory and CPU time of the server's processes, read from `/proc`. For a server on another
//! machine, both are unknown.

use std::{collections::HashSet, fs, net::SocketAddr, path::Path, time::Duration};

use tokio::net::TcpStream;

/// The processes of one server, such as a master and its workers. Empty if they are unknown.
#[derive(Debug)]
pub(super) struct ServerProcesses(Vec<u32>);

/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

impl ServerProcesses {
    /// The named processes. Without names: the listeners at the address, if it is local.
    pub async fn find(named: &[u32], address: SocketAddr) -> Self {
        if !named.is_empty() {
            return Self(named.to_vec());
        }
        // A connection from this machine to itself has the same address at both ends.
        let is_here = match TcpStream::connect(address).await.and_then(|it| it.local_addr()) {
            Ok(local) => local.ip() == address.ip(),
            Err(_) => false,
        };
        Self(if is_here { listening(address.port()) } else { Vec::new() })
    }

    pub fn pids(&self) -> &[u32] {
        &self.0
    }

    /// Proportional set size of all processes: shared pages count once.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.sum(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kibibytes * 1024)
        })
    }

    /// CPU time so far, of all running threads.
    pub fn cpu(&self) -> Option<Duration> {
        let nanos = self.sum(|pid| {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let nanos = tasks.filter_map(|task| {
                let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<u64>().ok()
            });
            Some(nanos.sum())
        });
        nanos.map(Duration::from_nanos)
    }

    fn sum(&self, of: impl Fn(u32) -> Option<u64>) -> Option<u64> {
        if self.0.is_empty() { None } else { self.0.iter().map(|pid| of(*pid)).sum() }
    }
}

/// Processes with a listening socket at the port.
fn listening(port: u16) -> Vec<u32> {
    let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, port).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| has_one_of(*pid, &sockets)).collect()
}

/// The inodes of sockets listening at the port, from a table of the kernel.
fn inodes(table: &str, port: u16) -> impl Iterator<Item = String> + '_ {
    table.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, hex) = address.rsplit_once(':')?;
        let is_it = *state == LISTENING && u16::from_str_radix(hex, 16) == Ok(port);
        is_it.then(|| (*inode).to_owned())
    })
}

fn has_one_of(pid: u32, sockets: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let is_one = |path: &Path| path.to_str().is_some_and(|name| sockets.contains(name));
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|path| is_one(&path)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_listens_on_this_machine_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = ServerProcesses::find(&[], address).await;
        assert_eq!(found.pids(), [std::process::id()]);
        assert!(found.memory_bytes() > Some(0) && found.cpu() > Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn what_is_not_known_is_not_zero() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let found = ServerProcesses::find(&[], address).await;
        assert_eq!((found.memory_bytes(), found.cpu()), (None, None));
        assert_eq!(ServerProcesses::find(&[u32::MAX], address).await.memory_bytes(), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 11 1\n\
             1: 0100007F:1F90 0100007F:9999 01 0:0 00:0 0 0 0 22 1\n\
             2: 0100007F:1F91 00000000:0000 0A 0:0 00:0 0 0 0 33 1\n";
        assert_eq!(inodes(table, 8080).collect::<Vec<_>>(), ["11"]);
    }
}

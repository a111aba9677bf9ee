//! The measured cases, the same for every store.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::stores::Candidate;

/// Publishes waiting together in one group.
const GROUP: u64 = 64;

const PUBLISH_TIME: Duration = Duration::from_secs(5);

pub fn run<C: Candidate>(case: &str, directory: &Path, number: u64) -> Result<String, String> {
    match case {
        "publish" => publish::<C>(directory),
        "write-100" => write::<C>(directory, number, 100),
        "write-1024" => write::<C>(directory, number, 1024),
        "fill" => fill::<C>(directory, number),
        "open" => open::<C>(directory, number),
        "damage" => damage::<C>(directory, number),
        _ => full::<C>(directory),
    }
}

/// Unlike payloads: a store with compression gains nothing from repetition.
fn payloads(first: u64, count: u64, bytes: usize) -> Vec<Vec<u8>> {
    let payload = |number: u64| {
        let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..bytes).map(next).collect()
    };
    (first..first + count).map(payload).collect()
}

/// Synced groups, with a window of the newest quarter: older events are removed.
fn write<C: Candidate>(directory: &Path, events: u64, bytes: usize) -> Result<String, String> {
    let (mut store, _) = C::open(directory)?;
    let window = events / 4;
    let mut times = Vec::new();
    let before = written_bytes();
    let start = Instant::now();
    for first in (1..=events).step_by(GROUP as usize) {
        let group = payloads(first, GROUP, bytes);
        let begin = Instant::now();
        store.write(first, group, first.saturating_sub(window), true)?;
        times.push(begin.elapsed());
    }
    let took = start.elapsed();
    store.close()?;
    times.sort();
    let payload = events.div_ceil(GROUP) * GROUP * bytes as u64;
    let quantile = |at: f64| times[((times.len() - 1) as f64 * at) as usize].as_secs_f64() * 1e3;
    Ok(format!(
        "{:.0} events/s; group p50 {:.2} ms, p99 {:.2} ms; written {:.2} × payload; {} MiB",
        events as f64 / took.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        (written_bytes() - before) as f64 / payload as f64,
        peak_memory_mib(),
    ))
}

/// Each of 64 publishers sends an event of 100 B after the answer to its last one.
fn publish<C: Candidate>(directory: &Path) -> Result<String, String> {
    let (store, _) = C::open(directory)?;
    let end = Instant::now() + PUBLISH_TIME;
    let next = AtomicU64::new(1);
    let publisher = || {
        let mut times = Vec::new();
        while Instant::now() < end {
            let begin = Instant::now();
            store.publish(next.fetch_add(1, Ordering::Relaxed), vec![7; 100])?;
            times.push(begin.elapsed());
        }
        Ok::<_, String>(times)
    };
    let mut times = Vec::new();
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..GROUP).map(|_| scope.spawn(publisher)).collect();
        for publisher in publishers {
            times.extend(publisher.join().map_err(|_| "a publisher panicked")??);
        }
        Ok::<_, String>(())
    })?;
    times.sort();
    let quantile = |at: f64| times[((times.len() - 1) as f64 * at) as usize].as_secs_f64() * 1e3;
    let rate = times.len() as f64 / PUBLISH_TIME.as_secs_f64();
    Ok(format!("{rate:.0} events/s; p50 {:.2} ms, p99 {:.2} ms", quantile(0.5), quantile(0.99)))
}

fn fill<C: Candidate>(directory: &Path, events: u64) -> Result<String, String> {
    let bytes = if events == 100_000 { 1024 } else { 100 };
    let (mut store, _) = C::open(directory)?;
    for first in (1..=events).step_by(4096) {
        store.write(first, payloads(first, 4096.min(events + 1 - first), bytes), 0, false)?;
    }
    store.close()?;
    Ok(String::new())
}

fn open<C: Candidate>(directory: &Path, events: u64) -> Result<String, String> {
    let start = Instant::now();
    let (store, read) = C::open(directory)?;
    let took = start.elapsed();
    drop(store);
    let lost = if read == events { "" } else { " (events missing!)" };
    let size = size_of(directory) >> 20;
    let seconds = took.as_secs_f64();
    Ok(format!("{seconds:.2} s{lost}; {} MiB memory; {size} MiB on disk", peak_memory_mib()))
}

/// Changes one block in the middle of the largest file.
fn damage<C: Candidate>(directory: &Path, events: u64) -> Result<String, String> {
    let mut files = files_of(directory);
    files.sort_by_key(|(_, bytes)| *bytes);
    let (path, bytes) = files.last().ok_or("no file")?;
    let mut content = fs::read(path).map_err(|error| error.to_string())?;
    let middle = (*bytes / 2) as usize / 4096 * 4096;
    content[middle..middle + 4096].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(path, content).map_err(|error| error.to_string())?;
    let (_, read) = C::open(directory)?;
    Ok(format!("{read} of {events} events read"))
}

/// Fills the disk, makes room, and tries again with the same open store.
fn full<C: Candidate>(directory: &Path) -> Result<String, String> {
    let ballast = directory.join("ballast");
    let data = directory.join("data");
    fs::write(&ballast, vec![1; 24 << 20]).map_err(|error| error.to_string())?;
    fs::create_dir(&data).map_err(|error| error.to_string())?;
    let (mut store, _) = C::open(&data)?;
    let mut kept = 0;
    let mut first = 1;
    let error = loop {
        match store.write(first, payloads(first, GROUP, 1024), 0, true) {
            Ok(()) => kept = first + GROUP - 1,
            Err(error) => break error,
        }
        first += GROUP;
    };
    fs::remove_file(ballast).map_err(|error| error.to_string())?;
    let again = store.write(first + GROUP, payloads(first, GROUP, 1024), 0, true);
    let again = again.map_or_else(|error| format!("refused: {error}"), |()| "taken".to_owned());
    drop(store);
    let reopened = C::open(&data).map(|(_, read)| {
        if read >= kept {
            "all acknowledged events there".into()
        } else {
            format!("{read} of {kept}")
        }
    });
    let reopened = reopened.unwrap_or_else(|error| format!("cannot open: {error}"));
    Ok(format!("\"{error}\"; with room again, a write is {again}; reopened: {reopened}"))
}

fn files_of(directory: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => files.extend(files_of(&entry.path())),
            Ok(metadata) => files.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    files
}

fn size_of(directory: &Path) -> u64 {
    files_of(directory).iter().map(|(_, bytes)| bytes).sum()
}

/// Bytes sent to the disk by this process.
fn written_bytes() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

fn peak_memory_mib() -> u64 {
    field("/proc/self/status", "VmHWM:") / 1024
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

//! Compares three stores for the log on disk: `fjall`, `redb`, and fanfare's own segments.
//!
//!     cargo run --release --manifest-path benches/log-stores/Cargo.toml -- [--events N] [--open N,N] [--directory DIR]
//!
//! Each cell runs in a process of its own, so that memory and written bytes are its own. The
//! directory should be on the disk of interest. The table is in the book: internals, "The log on
//! disk".

mod cases;
mod stores;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const STORES: [&str; 3] = ["segments", "fjall", "redb"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("case") => run_case(&arguments[1..]),
        _ => run_all(&arguments),
    }
}

/// One cell: prints its figures.
fn run_case(arguments: &[String]) -> ExitCode {
    let [store, case, directory, number] = arguments else { return ExitCode::from(2) };
    let directory = Path::new(directory);
    let number: u64 = number.parse().unwrap_or(0);
    let result = match store.as_str() {
        "segments" => cases::run::<stores::Segments>(case, directory, number),
        "fjall" => cases::run::<stores::Fjall>(case, directory, number),
        _ => cases::run::<stores::Redb>(case, directory, number),
    };
    match result {
        Ok(text) => println!("{text}"),
        Err(text) => println!("failed: {text}"),
    }
    ExitCode::SUCCESS
}

fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}

fn run_all(arguments: &[String]) -> ExitCode {
    let events = option(arguments, "--events").unwrap_or("200000");
    let opens = option(arguments, "--open").unwrap_or("1000000,10000000");
    let root = PathBuf::from(option(arguments, "--directory").unwrap_or("."));
    let root = root.join("log-stores.tmp");
    let mut cases: Vec<(String, &str, &str)> = vec![
        ("64 publishers, an event of 100 B each".into(), "publish", "0"),
        ("group of 64 × 100 B, synced".into(), "write-100", events),
        ("group of 64 × 1 KiB, synced".into(), "write-1024", events),
    ];
    for count in opens.split(',') {
        cases.push((format!("open and read {count} × 100 B"), "open", count));
    }
    cases.push(("damaged block of 4 KiB among 100,000 × 1 KiB".into(), "damage", "100000"));
    cases.push(("full disk (tmpfs of 48 MiB)".into(), "full", "0"));
    println!("| case | {} |", STORES.join(" | "));
    println!("|---|---|---|---|");
    for (title, case, number) in cases {
        let cells = STORES.map(|store| cell(&root, store, case, number));
        println!("| {title} | {} |", cells.join(" | "));
    }
    ExitCode::SUCCESS
}

fn cell(root: &Path, store: &str, case: &str, number: &str) -> String {
    let directory = root.join(format!("{store}-{case}"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("the directory is writable");
    let run = |case: &str| in_process(store, case, &directory, number);
    let text = match case {
        "open" | "damage" => {
            run("fill");
            run(case)
        }
        case => run(case),
    };
    let _ = std::fs::remove_dir_all(&directory);
    text
}

fn in_process(store: &str, case: &str, directory: &Path, number: &str) -> String {
    let program = env::current_exe().expect("this program has a path");
    let mut command = match case {
        "full" => {
            let mut command = Command::new("unshare");
            let script =
                "mount -t tmpfs -o size=48m tmpfs \"$1\" && exec \"$2\" case \"$3\" full \"$1\" 0";
            command.args(["-rm", "sh", "-c", script, "sh"]).arg(directory).arg(program).arg(store);
            command
        }
        case => {
            let mut command = Command::new(program);
            command.args(["case", store, case]).arg(directory).arg(number);
            command
        }
    };
    let output = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => text,
        false => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("crashed: {}", text.lines().take(2).collect::<Vec<_>>().join(" "))
        }
    }
}

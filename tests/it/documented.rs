//! The programs and commands of README and guide: they are compiled, or run.

use std::{path::Path, process::Command};

use super::Server;
use crate::support::repository;

fn page(path: &str) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The first Rust block of a page.
fn first_program(path: &str) -> String {
    let page = page(path);
    let (_, from) = page.split_once("```rust\n").expect("a Rust block");
    from.split_once("```").expect("its end").0.to_owned()
}

/// README and all pages of the guide.
fn pages() -> Vec<String> {
    let guide = std::fs::read_dir(repository().join("docs/guide")).expect("the guide");
    let mut pages = vec!["README.md".to_owned()];
    for entry in guide {
        let name = entry.expect("it can be read").file_name().into_string().expect("UTF-8");
        pages.push(format!("docs/guide/{name}"));
    }
    pages
}

#[test]
fn the_first_program_of_the_pages_is_the_compiled_one() {
    let program = page("examples/first.rs");
    let (_, program) = program.split_once("\n\n").expect("its head");
    for path in ["README.md", "docs/guide/embedding.md"] {
        assert_eq!(first_program(path), program, "{path}");
    }
}

/// The commands of the indented blocks and of code in tables.
fn commands(page: &str, program: &str) -> Vec<String> {
    let indented = page.lines().filter_map(|line| line.strip_prefix("    "));
    let inline = page.split('`').skip(1).step_by(2);
    let start = format!("{program} ");
    let is_command = |text: &&str| {
        // A version begins the banner of `fanfare serve`.
        let rest = text.strip_prefix(&start);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let commands = indented.chain(inline).filter(is_command);
    commands.filter(|text| !text.contains('…') && !text.contains('\n')).map(str::to_owned).collect()
}

#[test]
fn every_documented_fanfare_command_has_known_flags() {
    let binary = Path::new(env!("CARGO_BIN_EXE_fanfare"));
    let mut count = 0;
    for path in pages() {
        for command in commands(&page(&path), "fanfare") {
            // The help is printed only if everything before it is valid.
            let arguments = command.strip_prefix("fanfare").expect("just seen");
            // Data in quotes may contain anything.
            let end =
                if arguments.contains('\'') { None } else { arguments.find(['|', ';', '#', '>']) };
            let arguments = &arguments[..end.unwrap_or(arguments.len())];
            let script = format!("{} {arguments} --help", binary.display());
            let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{path}: {command}\n{said}");
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} commands found");
}

#[tokio::test]
async fn the_readmes_requests_work() {
    let server = Server::start(&["--no-demo"]).await;
    let mut count = 0;
    for command in commands(&page("README.md"), "curl") {
        let command = command.replace("127.0.0.1:8080", &server.addr.to_string());
        // A stream goes on: five seconds of it suffice (exit code 28).
        let is_stream = command.contains("-N");
        let limit = if is_stream { "--max-time 5" } else { "--fail" };
        let script = format!("{command} {limit}");
        let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = if is_stream { "event: connected" } else { "\"success\":true" };
        assert!(printed.contains(expected), "{command}\n{printed}");
        count += 1;
    }
    assert_eq!(count, 2);
}

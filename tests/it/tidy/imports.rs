//! Imports between modules: only the allowed ones, and no cycle in any crate.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::sources::{CRATES, Source, assert_none, sources};

/// The modules of the library, each with its allowed imports. No module imports a later one.
const ALLOWED: &[(&str, &[&str])] = &[
    ("process", &[]),
    ("lifecycle", &[]),
    ("ids", &[]),
    ("clock", &[]),
    ("hops", &[]),
    ("threads", &["actors", "clock"]),
    ("config", &[]),
    ("addresses", &["clock", "config"]),
    ("users", &["addresses", "clock"]),
    ("request_budget", &["addresses"]),
    ("error", &["config"]),
    ("metrics", &["process"]),
    ("follow", &[]),
    ("cluster", &[]),
    ("revocations", &[]),
    ("tables", &["follow", "revocations"]),
    ("stream_reports", &[]),
    (
        "actors",
        &[
            "addresses",
            "clock",
            "follow",
            "hops",
            "ids",
            "lifecycle",
            "metrics",
            "revocations",
            "stream_reports",
            "users",
        ],
    ),
    ("access", &["actors", "clock", "config", "revocations"]),
    ("web_client", &["threads"]),
    ("tokens", &["access", "config", "web_client"]),
    ("webhook", &["access", "addresses", "clock", "config", "web_client"]),
    ("log", &["actors", "clock", "config", "error", "metrics", "tables"]),
    ("redis", &["config", "error", "metrics", "threads"]),
    ("publisher", &["actors", "config", "hops", "lifecycle"]),
    ("instances", &["actors", "clock", "ids", "publisher", "revocations"]),
    ("fan_out", &["actors", "config", "follow", "instances", "lifecycle", "publisher"]),
    ("transport", &["actors", "addresses", "clock", "hops"]),
    (
        "hub",
        &[
            "access",
            "actors",
            "addresses",
            "clock",
            "cluster",
            "config",
            "error",
            "fan_out",
            "follow",
            "ids",
            "instances",
            "lifecycle",
            "log",
            "metrics",
            "process",
            "publisher",
            "redis",
            "request_budget",
            "revocations",
            "stream_reports",
            "tables",
            "threads",
            "tokens",
            "users",
            "web_client",
            "webhook",
        ],
    ),
    (
        "http",
        &[
            "access",
            "addresses",
            "clock",
            "error",
            "config",
            "fan_out",
            "hops",
            "hub",
            "instances",
            "metrics",
            "publisher",
            "request_budget",
            "transport",
        ],
    ),
    ("topics", &["error", "hub"]),
    ("server", &["access", "addresses", "hops", "http", "hub", "transport"]),
];

/// Public names at the library's root, each with its module.
const ROOT_NAMES: &[(&str, &str)] =
    &[("Hub", "hub"), ("Config", "config"), ("Server", "server"), ("StartError", "error")];

/// Imports (from, to) of top-level modules, with one file as evidence.
type Edges = BTreeMap<(String, String), String>;

/// Collects the paths of one file that begin with `crate`, `super` or `self`.
struct Paths<'a> {
    source: &'a Source,
    found: BTreeSet<Vec<String>>,
}

impl Paths<'_> {
    fn add(&mut self, path: &[String]) {
        let module = &self.source.module;
        let absolute = match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some("self") => [module, &path[1..]].concat(),
            Some("super") => {
                let levels = path.iter().take_while(|name| *name == "super").count();
                let kept = module.len().saturating_sub(levels);
                [&module[..kept], &path[levels..]].concat()
            }
            _ => return,
        };
        self.found.insert(absolute);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(prefix, tree));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&names);
        visit::visit_path(self, path);
    }
}

/// The imports between top-level modules of a crate.
fn edges(krate: &str) -> Edges {
    let sources = sources(krate);
    let modules: BTreeSet<String> =
        sources.iter().filter_map(|source| source.module.first().cloned()).collect();
    let mut edges = Edges::new();
    for source in &sources {
        let Some(from) = source.module.first() else { continue };
        let mut paths = Paths { source, found: BTreeSet::new() };
        source.items.iter().for_each(|item| paths.visit_item(item));
        for path in paths.found {
            let Some(first) = path.first() else { continue };
            let named = ROOT_NAMES.iter().find(|(name, _)| name == first);
            let to = named.map_or(first.as_str(), |(_, module)| module);
            if to != from && modules.contains(to) {
                let edge = (from.clone(), to.to_owned());
                edges.entry(edge).or_insert_with(|| source.path.clone());
            }
        }
    }
    edges
}

/// A cycle of modules, if there is one.
fn cycle(edges: &Edges) -> Option<Vec<String>> {
    fn walk(edges: &Edges, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let last = path.last().expect("it starts with one").clone();
        for (_, to) in edges.keys().filter(|(from, _)| *from == last) {
            if path.contains(to) {
                path.push(to.clone());
                return true;
            }
            if !done.contains(to) {
                path.push(to.clone());
                if walk(edges, path, done) {
                    return true;
                }
                path.pop();
            }
        }
        done.insert(last);
        false
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|(from, _)| {
        let mut path = vec![from.clone()];
        (!done.contains(from) && walk(edges, &mut path, &mut done)).then_some(path)
    })
}

#[test]
fn a_cycle_is_found_in_grouped_imports() {
    let edge = |from: &str, to: &str| ((from.to_owned(), to.to_owned()), String::new());
    let edges = Edges::from([edge("a", "b"), edge("b", "c"), edge("c", "a"), edge("c", "d")]);
    assert_eq!(cycle(&edges), Some(["a", "b", "c", "a"].map(str::to_owned).to_vec()));
    let source = Source {
        path: String::new(),
        module: vec!["actors".to_owned(), "partition".to_owned()],
        text: String::new(),
        items: syn::parse_file("use crate::{hub::{self, Hub}, log as x}; use super::super::ids;")
            .unwrap()
            .items,
    };
    let mut paths = Paths { source: &source, found: BTreeSet::new() };
    source.items.iter().for_each(|item| paths.visit_item(item));
    let firsts: BTreeSet<&str> = paths.found.iter().map(|path| path[0].as_str()).collect();
    assert_eq!(firsts, BTreeSet::from(["hub", "ids", "log"]));
}

#[test]
fn no_crate_has_an_import_cycle() {
    let found = CRATES.iter().filter_map(|krate| {
        let edges = edges(krate);
        let cycle = cycle(&edges)?;
        let witness = |pair: &[String]| {
            let file = &edges[&(pair[0].clone(), pair[1].clone())];
            format!("{} -> {} in {file}", pair[0], pair[1])
        };
        let steps: Vec<String> = cycle.windows(2).map(witness).collect();
        Some(format!("crate {krate:?}: {}", steps.join(", ")))
    });
    assert_none(found.collect());
}

#[test]
fn modules_of_the_library_import_only_allowed_modules() {
    let edges = edges("");
    let allowed: BTreeSet<(String, String)> = ALLOWED
        .iter()
        .flat_map(|(from, all)| all.iter().map(|to| ((*from).to_owned(), (*to).to_owned())))
        .collect();
    let mut found: Vec<String> = edges
        .iter()
        .filter(|(edge, _)| !allowed.contains(*edge))
        .map(|((from, to), file)| format!("{from} -> {to} in {file} is not allowed"))
        .collect();
    let stale = allowed.iter().filter(|edge| !edges.contains_key(*edge));
    found.extend(stale.map(|(from, to)| format!("{from} -> {to} is allowed, but unused")));
    let modules: BTreeSet<String> =
        sources("").iter().filter_map(|source| source.module.first().cloned()).collect();
    let rows: BTreeSet<String> = ALLOWED.iter().map(|(from, _)| (*from).to_owned()).collect();
    found.extend(modules.symmetric_difference(&rows).map(|name| format!("no row for {name}")));
    assert_none(found);
}

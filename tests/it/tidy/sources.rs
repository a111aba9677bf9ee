//! The parsed sources of all crates, and rules for single files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

use crate::support::repository;

/// Every crate, by its folder.
pub const CRATES: [&str; 8] = [
    "",
    "crates/core",
    "crates/log",
    "crates/redis",
    "crates/tokens",
    "crates/uring",
    "crates/bench",
    "crates/cli",
];

/// A source file without its tests.
pub struct Source {
    /// Below the repository.
    pub path: String,
    /// Its module, below the crate: `["actors", "partition"]`.
    pub module: Vec<String>,
    pub text: String,
    pub items: Vec<syn::Item>,
}

/// The sources of one crate.
pub fn sources(krate: &str) -> Vec<Source> {
    let root = repository().join(krate).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let sources = files.iter().map(|file| read(krate, &root, file));
    // Files of `#[cfg(test)] mod` declarations.
    sources.filter(|source| !is_test(source)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(krate: &str, root: &Path, file: &Path) -> Source {
    let text = fs::read_to_string(file).expect("it can be read");
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let below = file.strip_prefix(root).expect("it was found there").with_extension("");
    let names = below.iter().map(|name| name.to_str().expect("names are UTF-8").to_owned());
    let module = names.filter(|name| !["mod", "lib", "main"].contains(&name.as_str())).collect();
    let path = Path::new(krate).join("src").join(file.strip_prefix(root).expect("as above"));
    let items = parsed.items.into_iter().filter(|item| !is_cfg_test(item)).collect();
    Source { path: path.display().to_string(), module, text, items }
}

fn is_test(source: &Source) -> bool {
    source
        .module
        .iter()
        .any(|name| ["tests", "follow_tests", "testing", "contract"].contains(&name.as_str()))
}

fn is_cfg_test(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(is_test_attribute)
}

fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

/// Fails with the list, if there is one.
pub fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_opens_with_its_module_doc() {
    let all = CRATES.iter().flat_map(|krate| sources(krate));
    let silent: Vec<String> =
        all.filter(|source| !source.text.starts_with("//!")).map(|source| source.path).collect();
    assert_none(silent);
}

/// Calls of `unwrap`, by file.
struct Unwraps<'a> {
    source: &'a Source,
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Unwraps<'_> {
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !item.attrs.iter().any(is_test_attribute) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" {
            self.found.push(self.source.path.clone());
        }
        visit::visit_expr_method_call(self, call);
    }
}

#[test]
fn nothing_is_unwrapped() {
    let mut found = Vec::new();
    for source in CRATES.iter().flat_map(|krate| sources(krate)) {
        let mut unwraps = Unwraps { source: &source, found: Vec::new() };
        source.items.iter().for_each(|item| unwraps.visit_item(item));
        found.extend(unwraps.found);
    }
    assert_none(found);
}

//! The endpoints reach the hub as their caller: by a grant, or by the proof of a checked one. The
//! hub's public methods are for its application, and check nothing.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use super::sources::{Source, assert_none, sources};

/// Methods of the application called by endpoints.
const ALLOWED: [&str; 3] = [
    // Of the hub, not of its topics.
    "is_ready",
    "on_connect",
    // The import checks each edge as it parses its line.
    "follow_all",
];

/// The public methods of `impl Hub`.
#[derive(Default)]
struct OfApplication(BTreeSet<String>);

impl<'ast> Visit<'ast> for OfApplication {
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let syn::Type::Path(path) = &*item.self_ty else { return };
        if item.trait_.is_none() && path.path.is_ident("Hub") {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if matches!(item.vis, syn::Visibility::Public(_)) {
            self.0.insert(item.sig.ident.to_string());
        }
    }
}

/// Calls of such methods on a `hub`, and proofs without a check.
struct Calls<'a> {
    source: &'a Source,
    methods: &'a BTreeSet<String>,
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Calls<'_> {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let is_hub = matches!(&*call.receiver, syn::Expr::Path(path) if path.path.is_ident("hub"));
        let method = call.method.to_string();
        if is_hub && self.methods.contains(&method) && !ALLOWED.contains(&method.as_str()) {
            self.found.push(format!("{}: hub.{method} without a grant", self.source.path));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let is_proof = path.segments.iter().any(|segment| segment.ident == "of_application");
        if is_proof && self.source.module != ["http", "operator"] {
            self.found.push(format!("{}: a proof without a grant", self.source.path));
        }
        visit::visit_path(self, path);
    }
}

#[test]
fn endpoints_call_the_hub_by_a_grant() {
    let (mut methods, all) = (OfApplication::default(), sources(""));
    let of = |module: &'static str| {
        all.iter().filter(move |source| source.module.first().is_some_and(|first| first == module))
    };
    for source in of("hub") {
        source.items.iter().for_each(|item| methods.visit_item(item));
    }
    assert!(methods.0.contains("followers") && methods.0.contains("publish"), "{:?}", methods.0);
    let mut found = Vec::new();
    for source in of("http") {
        let mut calls = Calls { source, methods: &methods.0, found: Vec::new() };
        source.items.iter().for_each(|item| calls.visit_item(item));
        found.extend(calls.found);
    }
    assert_none(found);
}

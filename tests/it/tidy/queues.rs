//! The message tables in module docs against the code: every message between actors has a row with
//! its bound.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use super::sources::{Source, assert_none, sources};

/// The crates with actors.
const ACTOR_CRATES: [&str; 2] = ["", "crates/redis"];

/// Structs deriving actix' `Message`, and the messages sent past a mailbox's bound.
#[derive(Default)]
struct Messages {
    declared: BTreeSet<String>,
    unbounded_sends: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Messages {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let derives_message = item.attrs.iter().any(|attribute| {
            let mut is_message = false;
            if attribute.path().is_ident("derive") {
                let _ = attribute.parse_nested_meta(|meta| {
                    is_message |= meta.path.is_ident("Message");
                    Ok(())
                });
            }
            is_message
        });
        if derives_message {
            self.declared.insert(item.ident.to_string());
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "do_send"
            && let Some(message) = call.args.first()
        {
            self.unbounded_sends.insert(name_of(message));
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The type constructed by an expression like `Drain { window }` or `TopicsLeft(1)`.
fn name_of(message: &syn::Expr) -> String {
    let path = match message {
        syn::Expr::Struct(expression) => Some(&expression.path),
        syn::Expr::Path(expression) => Some(&expression.path),
        syn::Expr::Call(expression) => match &*expression.func {
            syn::Expr::Path(function) => Some(&function.path),
            _ => None,
        },
        _ => None,
    };
    let last = path.and_then(|path| path.segments.last());
    last.map_or_else(|| "an expression".to_owned(), |segment| segment.ident.to_string())
}

fn messages() -> Messages {
    let mut messages = Messages::default();
    for source in ACTOR_CRATES.iter().flat_map(|krate| sources(krate)) {
        source.items.iter().for_each(|item| messages.visit_item(item));
    }
    messages
}

/// The names in the message column of the tables in module docs, with their bound.
fn rows() -> Vec<(String, String)> {
    let all: Vec<Source> = ACTOR_CRATES.iter().flat_map(|krate| sources(krate)).collect();
    let lines = all.iter().flat_map(|source| source.text.lines());
    let rows = lines.filter_map(|line| line.strip_prefix("//! | ")).filter_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells.len() >= 4).then(|| (cells[2].to_owned(), cells[3].to_owned()))
    });
    let names = rows.flat_map(|(messages, bound)| {
        let quoted = messages.split('`').skip(1).step_by(2).map(str::to_owned);
        quoted.map(move |name| (name, bound.clone())).collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
fn every_message_has_a_row_with_a_bound_and_every_row_a_message() {
    let declared = messages().declared;
    assert!(declared.len() > 30, "the messages were found");
    let rows = rows();
    let listed: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    let mut found: Vec<String> =
        declared.difference(&listed).map(|name| format!("no row for `{name}`")).collect();
    let stale = listed.difference(&declared);
    found.extend(stale.map(|name| format!("a row for `{name}`, but no such message")));
    let unbounded = rows.iter().filter(|(_, bound)| bound.is_empty());
    found.extend(unbounded.map(|(name, _)| format!("no bound for `{name}`")));
    assert_none(found);
}

#[test]
fn only_listed_messages_are_sent_past_a_mailboxs_bound() {
    let listed: BTreeSet<String> = rows().into_iter().map(|(name, _)| name).collect();
    let sends = messages().unbounded_sends;
    assert_none(sends.difference(&listed).cloned().collect());
}

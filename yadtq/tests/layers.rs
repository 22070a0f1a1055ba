//! Checks the imports in the crate's sources against the layers of the crate.
//!
//! A module may import from the layers below its own, never from its own layer or a higher one. So there is no circle
//! between the modules at the crate's root; a second check finds circles between files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Item, Visibility};

/// The modules at the crate's root, the lowest layer first. `guide` holds text only.
const LAYERS: [&[&str]; 9] = [
    &["core", "clock", "restart"],
    &["wire"],
    &["broker", "store"],
    &["error"],
    &["config", "task"],
    &["client"],
    &["periodic"],
    &["admin", "worker"],
    &["guide"],
];
/// The crates that only one folder may name.
const DRIVERS: [(&str, &str); 2] = [("rdkafka", "broker::kafka"), ("fred", "store::redis")];
/// Modules that may have circles between their files. None should be added.
const CIRCULAR: [&str; 0] = [];

/// A file of the crate, without its tests.
#[derive(Debug)]
struct Module {
    /// `client::handle`; empty for the crate's root.
    name: String,
    /// Every path in the file that begins with `crate`, `self`, `super` or a child module, from the root: `client::Client`.
    paths: BTreeSet<String>,
    /// Every identifier in the file.
    names: BTreeSet<String>,
    /// The names that the file re-exports from its children, with their paths: `Client` and `client::client::Client`.
    exports: BTreeMap<String, String>,
}

impl Module {
    /// The module, and the names of its children that are files.
    fn parse(name: &str, source: &str) -> (Self, Vec<String>) {
        let mut file = syn::parse_file(source).expect("it compiles");
        file.items.retain(|item| !is_test(item));
        let is_child = |item: &Item| matches!(item, Item::Mod(child) if child.content.is_none());
        let children: Vec<String> = file.items.iter().filter(|item| is_child(item)).map(module_name).collect();
        let mut module =
            Self { name: name.to_owned(), paths: BTreeSet::new(), names: BTreeSet::new(), exports: BTreeMap::new() };
        for item in &file.items {
            let mut paths = BTreeSet::new();
            module.read(item.to_token_stream(), &children, &mut paths);
            match item {
                // A re-export: whoever imports the name depends on the child, not on this file.
                Item::Use(item) if !matches!(item.vis, Visibility::Inherited) => {
                    for path in paths {
                        let exported = path.rsplit("::").next().expect("a path has a name").to_owned();
                        module.exports.insert(exported, path);
                    }
                }
                _ => module.paths.extend(paths),
            }
        }
        (module, children)
    }

    fn read(&mut self, tokens: TokenStream, children: &[String], found: &mut BTreeSet<String>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (i, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.read(group.stream(), children, found),
                TokenTree::Ident(name) => {
                    let name = name.to_string();
                    let is_start = ["crate", "self", "super"].contains(&&*name) || children.contains(&name);
                    // `pub(in crate::broker)` imports nothing, and `a::core::b` is another `core`.
                    let before = tokens[..i].last().map(ToString::to_string).unwrap_or_default();
                    let is_visibility = before == "in" && i == 1;
                    if is_start && !is_visibility && before != ":" && is_colons(&tokens[i + 1..]) {
                        follow(&tokens[i..], &mut Vec::new(), &mut |path| found.extend(self.absolute(path)));
                    }
                    self.names.insert(name);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// The path from the crate's root.
    fn absolute(&self, path: &[String]) -> Option<String> {
        let mut at: Vec<&str> = self.name.split("::").filter(|part| !part.is_empty()).collect();
        for (i, part) in path.iter().enumerate() {
            match part.as_str() {
                "crate" => at.clear(),
                "self" if i == 0 => {}
                "self" => break,
                "super" => drop(at.pop()),
                part => at.push(part),
            }
        }
        (!at.is_empty()).then(|| at.join("::"))
    }

    /// The module at the crate's root that contains this one.
    fn root(&self) -> &str {
        root(&self.name)
    }
}

/// Whether the module is `folder` or inside it.
fn is_within(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn root(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

/// Whether an item is compiled only for tests.
fn is_test(item: &Item) -> bool {
    let tokens: Vec<TokenTree> = item.to_token_stream().into_iter().collect();
    let attributes =
        tokens.chunks(2).take_while(|pair| matches!(&pair[0], TokenTree::Punct(mark) if mark.as_char() == '#'));
    attributes.flat_map(|pair| pair.get(1)).any(|attribute| attribute.to_string() == "[cfg (test)]")
}

fn module_name(item: &Item) -> String {
    match item {
        Item::Mod(module) => module.ident.to_string(),
        _ => String::new(),
    }
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(tokens.first()) && is_colon(tokens.get(1))
}

/// Calls `found` with every path in a use tree or an expression.
fn follow(tokens: &[TokenTree], path: &mut Vec<String>, found: &mut dyn FnMut(&[String])) {
    match tokens.first() {
        Some(TokenTree::Ident(name)) => {
            path.push(name.to_string());
            match is_colons(&tokens[1..]) {
                true => follow(&tokens[3..], path, found),
                false => found(path),
            }
            path.pop();
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let trees: Vec<TokenTree> = group.stream().into_iter().collect();
            let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
            trees.split(is_comma).filter(|tree| !tree.is_empty()).for_each(|tree| follow(tree, path, found));
        }
        _ => found(path),
    }
}

/// Every file of the crate, except those that are compiled only for tests.
fn modules() -> Vec<Module> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut modules, mut rest) = (Vec::new(), vec![(String::new(), sources.join("lib.rs"), sources)]);
    while let Some((name, file, folder)) = rest.pop() {
        let (module, children) = Module::parse(&name, &fs::read_to_string(&file).expect("the file is there"));
        modules.push(module);
        for child in children {
            let inner = folder.join(&child);
            let alone: PathBuf = folder.join(format!("{child}.rs"));
            let file = if alone.exists() { alone } else { inner.join("mod.rs") };
            rest.push((format!("{name}::{child}").trim_start_matches(':').to_owned(), file, inner));
        }
    }
    modules
}

/// The imports that break the layers.
fn upward(modules: &[Module]) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut found = Vec::new();
    for module in modules.iter().filter(|module| !module.name.is_empty()) {
        let Some(own) = layer(module.root()) else {
            found.push(format!("`{}` is in no layer", module.root()));
            continue;
        };
        for path in module.paths.iter().chain(module.exports.values()) {
            match layer(root(path)) {
                _ if root(path) == module.root() => {}
                Some(other) if other < own => {}
                Some(_) => found.push(format!("`{}` imports `{path}`, which is not in a layer below", module.name)),
                None => found.push(format!("`{}` imports `{path}` through the crate's root", module.name)),
            }
        }
        for (driver, folder) in DRIVERS {
            if module.names.contains(driver) && !is_within(&module.name, folder) {
                found.push(format!("`{}` names {driver}, which only `{folder}` may", module.name));
            }
        }
    }
    found
}

/// The file that defines what a path names.
fn defining<'a>(modules: &BTreeMap<&'a str, &'a Module>, path: &'a str) -> &'a str {
    let mut path = path;
    loop {
        let mut file = path;
        while !modules.contains_key(file) {
            file = file.rsplit_once("::").map_or("", |(folder, _)| folder);
        }
        let name = path[file.len()..].trim_start_matches(':').split("::").next().unwrap_or_default();
        match modules[file].exports.get(name) {
            Some(exported) if exported != path => path = exported,
            _ => return file,
        }
    }
}

/// The files that import each other in a circle.
fn circles(modules: &[Module]) -> Vec<String> {
    let by_name: BTreeMap<&str, &Module> = modules.iter().map(|module| (&*module.name, module)).collect();
    let imports: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        .filter(|module| !module.name.is_empty() && !CIRCULAR.contains(&module.root()))
        .map(|module| (&*module.name, module.paths.iter().map(|path| defining(&by_name, path)).collect()))
        .collect();
    let reachable = |from: &str| {
        let (mut seen, mut rest) = (BTreeSet::new(), vec![from]);
        while let Some(name) = rest.pop() {
            for &next in imports.get(name).into_iter().flatten() {
                // A folder's own file belongs to all of its files.
                if !is_within(name, next) && seen.insert(next) {
                    rest.push(next);
                }
            }
        }
        seen
    };
    imports.keys().filter(|name| reachable(name).contains(*name)).map(|name| (*name).to_owned()).collect()
}

#[test]
fn nothing_imports_upward() {
    let modules = modules();
    assert!(modules.len() > 60, "the sources are read: {}", modules.len());
    assert_eq!(upward(&modules), Vec::<String>::new());
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_eq!(circles(&modules()), Vec::<String>::new());
}

#[test]
fn violations_are_found() {
    let parse = |name: &str, source: &str| Module::parse(name, source).0;
    let fine = [
        parse("wire::dead", "use crate::core::names::TaskId; #[cfg(test)] mod tests { use crate::worker::Worker; }"),
        parse(
            "broker::kafka::reader",
            "use rdkafka::Message; use super::super::Event; pub(in crate::broker) fn f() {}",
        ),
        parse("client::send", "use super::{Client, waiting::Waiter}; use crate::{error::Error, task::*};"),
        parse("core::ticks", "/// See [`crate::worker`].\nuse super::names::TaskId; use other::worker::X;"),
    ];
    assert_eq!(upward(&fine), Vec::<String>::new());
    for (name, source) in [
        ("core::names", "use crate::wire::Headers;"),
        ("core", "use crate::clock::Clock;"),
        ("wire::control", "use std::fmt; use crate::{broker::Outgoing};"),
        ("broker::memory", "use crate::store::Store;"),
        ("task::limits", "fn f() { super::super::client::unique::of() }"),
        ("admin", "fn f() { select! { x = crate::worker::run() => x } }"),
        ("error", "use crate::{core::names::TaskId, client::{call::Call}};"),
        ("client", "use crate::Worker;"),
        ("broker::memory", "use rdkafka::Message;"),
        ("store", "fn f() { fred::connect() }"),
        ("lobby", "use std::fmt;"),
    ] {
        assert_eq!(upward(&[parse(name, source)]).len(), 1, "{name}: {source}");
    }
    let index = parse("client", "mod call; mod handle; pub use self::{call::Call, handle::Handle};");
    let (call, handle) = (parse("client::call", "use super::Handle;"), parse("client::handle", "fn f() {}"));
    let root = || parse("", "mod client;");
    assert_eq!(circles(&[root(), index, call, handle]), Vec::<String>::new());
    let index = parse("client", "mod call; mod handle; pub use self::{call::Call, handle::Handle};");
    let (call, handle) =
        (parse("client::call", "use super::Handle;"), parse("client::handle", "use crate::client::Call;"));
    assert_eq!(circles(&[root(), index, call, handle]), ["client::call", "client::handle"]);
    let (index, call) = (parse("client", "mod call; fn f() { call::g() }"), parse("client::call", "use super::f;"));
    assert_eq!(circles(&[root(), index, call]), Vec::<String>::new());
}

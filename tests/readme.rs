//! README.md against the program: its tables list what there is, no more and
//! no less, and its configuration examples are good.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test says no")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::raw::Upgrade;
use common::{Gateway, Options};
use serde_json::Value;

const README: &str = include_str!("../README.md");

/// The rows of the one table whose head begins with this cell.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let mut found = Vec::new();
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for line in README.lines().chain([""]) {
        match line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) {
            Some(row) => rows.push(row.split('|').map(str::trim).collect()),
            None => {
                let table = std::mem::take(&mut rows);
                if table.first().is_some_and(|head| head[0] == first) {
                    found.push(table);
                }
            }
        }
    }
    assert_eq!(found.len(), 1, "tables that begin with {first:?}");
    found.remove(0).split_off(2)
}

/// What stands in backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The first column of a table, without backticks.
fn names(first: &str) -> BTreeSet<String> {
    let rows = table(first);
    let names: BTreeSet<_> = rows.iter().map(|row| code(row[0])[0].to_owned()).collect();
    assert_eq!(names.len(), rows.len(), "a row is there twice");
    names
}

/// Label names, each with its values; none = not said.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Reads `` `direction`: in, out; `kind`: ack, push ``.
fn listed_labels(cell: &str) -> Labels {
    let label = |part: &str| {
        let values = part.split_once("`:").map_or("", |(_, values)| values);
        let values = values.split(',').map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
        (code(part)[0].to_owned(), values.collect())
    };
    cell.split(';').filter(|part| part.contains('`')).map(label).collect()
}

/// Type and labels of every metric in an exposition.
fn exposed_metrics(text: &str) -> BTreeMap<String, (String, Labels)> {
    let mut exposed: BTreeMap<String, (String, Labels)> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|head| head.split_once(' ')) {
            name.clone_into(&mut current);
            exposed.insert(current.clone(), (kind.to_owned(), Labels::new()));
        } else if let Some((_, pairs)) = line.rsplit_once('}').and_then(|(head, _)| head.split_once('{')) {
            let (_, labels) = exposed.get_mut(&current).unwrap();
            for (label, value) in pairs.split("\",").map(|pair| pair.split_once("=\"").unwrap()) {
                if label != "le" {
                    labels
                        .entry(label.to_owned())
                        .or_default()
                        .insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    exposed
}

#[tokio::test]
async fn every_metric_is_listed_with_its_type_and_labels() {
    let gateway = Gateway::start(Options::new()).await;
    // Makes the one counter that is not there before it counts.
    assert_eq!(Upgrade::new("/ws").send(&gateway).await.status, 401);
    let exposed = exposed_metrics(&gateway.http().get("/metrics").await.success().text());
    assert!(exposed.len() > 30, "{}", exposed.len());
    assert_eq!(names("metric"), exposed.keys().cloned().collect());
    for row in table("metric") {
        let name = code(row[0])[0];
        let (kind, labels) = &exposed[name];
        let mut listed = listed_labels(row[2]);
        for (label, values) in &mut listed {
            if values.is_empty() {
                values.clone_from(labels.get(label).unwrap_or(&BTreeSet::new()));
            }
        }
        assert_eq!((row[1], &listed), (kind.as_str(), labels), "{name}");
    }
}

#[tokio::test]
async fn every_ending_is_in_the_table_of_close_codes() {
    let gateway = Gateway::start(Options::new()).await;
    let exposed = exposed_metrics(&gateway.http().get("/metrics").await.success().text());
    let (_, labels) = &exposed["tidegate_connections_closed_total"];
    let listed: BTreeSet<_> = table("code").iter().map(|row| code(row[2])[0].to_owned()).collect();
    assert_eq!(listed, labels["reason"]);
}

#[tokio::test]
async fn every_admin_route_is_listed() {
    let gateway = Gateway::start(Options::new()).await;
    let document = gateway.http().get("/openapi.json").await.success().json();
    let paths = document["paths"].as_object().unwrap();
    let methods = |operations: &Value| operations.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let routes = paths.iter().flat_map(|(path, operations)| {
        methods(operations).into_iter().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    assert_eq!(names("call"), routes.collect());
}

/// Runs `tidegate serve --check` on this file; relative paths start in `dir`.
fn check(dir: &Path, toml: &str) -> Output {
    let path = dir.join("tidegate.toml");
    fs::write(&path, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(key);
    }
    command.args(["serve", "--check", "--config"]).arg(path).current_dir(dir).output().unwrap()
}

/// The keys that a table has, from what is said of one it has not; `None` =
/// there is no such table.
fn keys_of(table: &str) -> Option<BTreeSet<String>> {
    let dir = tempfile::tempdir().unwrap();
    let output = check(dir.path(), &format!("{table}\nstranger = 1\n"));
    let said = String::from_utf8(output.stderr).unwrap();
    let (_, expected) = said.split_once("unknown field `stranger`, expected ")?;
    Some(code(expected.lines().next().unwrap()).into_iter().map(str::to_owned).collect())
}

#[test]
fn every_key_of_the_configuration_is_listed_with_its_variable() {
    let mut keys = BTreeSet::new();
    for top in keys_of("").unwrap() {
        match keys_of(&format!("[{top}]")) {
            Some(inner) => keys.extend(inner.into_iter().map(|key| format!("{top}.{key}"))),
            None => drop(keys.insert(top)),
        }
    }
    assert!(keys.remove("auth.keys"), "{keys:?}");
    let of_a_key = keys_of("[[auth.keys]]").unwrap();
    keys.extend(of_a_key.into_iter().map(|key| format!("auth.keys.{key}")));
    assert!(keys.len() > 25, "{keys:?}");
    assert_eq!(names("key"), keys);
    for row in table("key") {
        let key = code(row[0])[0];
        let key = if key.starts_with("auth.keys.") { "auth.keys" } else { key };
        let variable = format!("TIDEGATE_{}", key.replace('.', "_").to_uppercase());
        assert_eq!(code(row[2]), [variable], "{key}");
    }
}

#[test]
fn the_defaults_and_the_examples_are_good() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jwt.secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let good = |toml: &str| {
        let output = check(dir.path(), toml);
        assert!(output.status.success(), "{toml}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    let examples: Vec<_> = README.split("```toml\n").skip(1).collect();
    assert!(!examples.is_empty());
    examples.iter().for_each(|example| good(example.split_once("```").unwrap().0));

    let rows = table("key");
    let defaults: Vec<_> = rows
        .iter()
        .filter(|row| row[1].starts_with('`'))
        .map(|row| format!("{} = {}\n", code(row[0])[0], code(row[1])[0]))
        .collect();
    assert!(defaults.len() > 15, "{defaults:?}");
    good(&defaults.concat());
}

//! File, environment and flags, laid over one another.
//!
//! Each value is first read alone against [`File`], so that every wrong or
//! unknown key is reported and not just the first; then the good ones overlay
//! each other and where each came from is remembered for later errors.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::error::ConfigError;
use super::file::File;

const PREFIX: &str = "TIDEGATE_";

/// The file to read.
pub(super) const CONFIG_VARIABLE: &str = "TIDEGATE_CONFIG";

/// Set by cargo for programs it runs, because the build script sets it.
const BUILD_VARIABLE: &str = "TIDEGATE_COMMIT";

/// Tables of the file; what starts with another word is a top-level key.
pub(super) const TABLES: [&str; 12] = [
    "admin",
    "auth",
    "groups",
    "handover",
    "heartbeat",
    "limits",
    "log",
    "presence",
    "redis",
    "retention",
    "route",
    "store",
];

/// The `TIDEGATE_` variables of this process.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    // Not `vars()`, which panics on a variable of somebody else's in another encoding.
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .filter(|(name, _)| !(cfg!(feature = "planted-bugs") && name == "TIDEGATE_PLANTED_BUG"))
}

/// The values read so far, later ones over earlier ones.
#[derive(Default)]
pub(super) struct Layers {
    values: Table,
    origins: BTreeMap<String, String>,
    errors: Vec<ConfigError>,
}

/// Where each configured key was written.
pub(super) struct Origins(BTreeMap<String, String>);

impl Layers {
    /// Adds the keys of a TOML file.
    pub(super) fn file(&mut self, path: &Path) {
        let name = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.error(name.to_string(), format!("cannot read: {error}")),
        };
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => return self.error(format!("{name}:{}", line_of(&text, &error)), error.message()),
        };
        for (key, value) in table {
            match value {
                Value::Table(inner) if !inner.is_empty() => {
                    for (inner_key, value) in inner {
                        self.put(format!("{name}: {key}.{inner_key}"), &[&key, &inner_key], value);
                    }
                }
                value => self.put(format!("{name}: {key}"), &[&key], value),
            }
        }
    }

    /// Adds the `TIDEGATE_` variables among `pairs`.
    pub(super) fn environment(&mut self, pairs: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in pairs {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            if name == CONFIG_VARIABLE || name == BUILD_VARIABLE {
                continue;
            }
            let key = key.to_ascii_lowercase();
            match key.split_once('_') {
                Some((table, inner)) if TABLES.contains(&table) => self.text(&name, &[table, inner], &value),
                _ => self.text(&name, &[&key], &value),
            }
        }
    }

    /// Adds a flag for the key at `path`.
    pub(super) fn flag(&mut self, flag: &str, path: &[&str], value: Option<&str>) {
        if let Some(value) = value {
            self.text(flag, path, value);
        }
    }

    /// What was written, where, and what was wrong with it.
    pub(super) fn finish(mut self) -> (File, Origins, Vec<ConfigError>) {
        let file = self.values.try_into().unwrap_or_else(|error: toml::de::Error| {
            self.errors.push(ConfigError { origin: "configuration".into(), message: error.message().into() });
            File::default()
        });
        (file, Origins(self.origins), self.errors)
    }

    /// A value typed as text: taken as text where the key is one, else as a
    /// TOML value.
    fn text(&mut self, origin: &str, path: &[&str], text: &str) {
        let as_text = Value::String(text.to_owned());
        let value = match (read_alone(path, &as_text), text.parse::<Value>()) {
            // Where neither reads, the text gives the better complaint.
            (Err(_), Ok(literal)) if read_alone(path, &literal).is_ok() => literal,
            _ => as_text,
        };
        self.put(origin.to_owned(), path, value);
    }

    fn put(&mut self, origin: String, path: &[&str], value: Value) {
        if let Err(message) = read_alone(path, &value) {
            // It was written, though badly: nobody need complain that it is missing.
            self.origins.entry(path.join(".")).or_insert_with(|| origin.clone());
            return self.error(origin, message);
        }
        self.origins.insert(path.join("."), origin);
        match path {
            [table, key] => {
                let inner = self.values.entry(*table).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(inner) = inner {
                    inner.insert((*key).to_owned(), value);
                }
            }
            _ => {
                self.values.insert(path.concat(), value);
            }
        }
    }

    fn error(&mut self, origin: String, message: impl Into<String>) {
        self.errors.push(ConfigError { origin, message: message.into() });
    }
}

impl Origins {
    /// Where the key was written; the key itself where it was not.
    pub(super) fn of<'a>(&'a self, key: &'a str) -> &'a str {
        self.0.get(key).map_or(key, String::as_str)
    }

    /// Whether the key was written at all, well or badly.
    pub(super) fn configured(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// Reads one value as if it were the only one.
fn read_alone(path: &[&str], value: &Value) -> Result<File, String> {
    let nest = |value, key: &&str| Value::Table(Table::from_iter([((*key).to_owned(), value)]));
    path.iter().rev().fold(value.clone(), nest).try_into().map_err(|error: toml::de::Error| {
        // A misplaced secret must not reach the log.
        match value {
            Value::String(text) => error.message().replace(&format!(" {text:?}"), ""),
            _ => error.message().to_owned(),
        }
    })
}

fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let at = error.span().map_or(0, |span| span.start);
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

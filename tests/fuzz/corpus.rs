//! The committed inputs: one file each, raw bytes.

use std::fs;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

/// Name and bytes of every input, by name.
pub(crate) fn read(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

pub(crate) fn write(name: &str, file: &str, bytes: &[u8]) {
    let folder = folder(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(file), bytes).unwrap();
}

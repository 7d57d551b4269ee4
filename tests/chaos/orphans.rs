//! Who runs: children of a process, and processes that somebody forgot.

use std::{fs, path::Path};

/// Processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; state and parent follow it.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse::<u32>().ok()?;
        (state != "Z").then_some(parent)
    };
    let mut all = processes();
    all.retain(|candidate| parent(candidate) == Some(pid));
    all
}

/// Processes that were started with, or for, this folder: command line or environment name it.
pub fn that_know(folder: &Path) -> Vec<String> {
    let needle = folder.to_str().unwrap();
    let own = std::process::id();
    let knows = |pid: u32| {
        let read = |file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let known = command.contains(needle) || read("environ").contains(needle);
        (known && pid != own).then(|| format!("{pid}: {command}"))
    };
    processes().into_iter().filter_map(knows).collect()
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

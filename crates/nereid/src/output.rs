//! What client commands print: tables for people, JSON for scripts.

use std::{fmt::Display, io::Write};

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Prints a line; a reader that has gone away (`| head`) is an error, not a panic.
pub fn line(text: &dyn Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints `value` as JSON.
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints rows as a table, or says that there are none.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> anyhow::Result<()> {
    if rows.is_empty() {
        return line(&"none");
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        table.add_row(row);
    }
    line(&table)
}

/// Formats a time for a table.
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Formats metrics as `accuracy 0.9812, loss 0.0561`.
pub fn metrics<'a>(values: impl IntoIterator<Item = (&'a String, &'a f64)>) -> String {
    let shown: Vec<_> = values
        .into_iter()
        .map(|(k, v)| format!("{k} {v:.4}"))
        .collect();
    shown.join(", ")
}

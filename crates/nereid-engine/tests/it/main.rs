//! The engine through its public interface: data in, models out.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::format_push_string,
    clippy::needless_pass_by_value,
    clippy::disallowed_methods,
    reason = "tests: what fails shall fail at once, and literals read best by value"
)]

mod augmentation;
mod data;
mod digits;
mod directions;
mod finders;
mod formats;
mod images;
mod large;
mod mixed;
mod mnist;
mod networks;
mod precision;
mod resume;
mod rules;
mod serving;
mod shards;
mod splits;
mod streaming;
mod support;
mod tabular;
mod tasks;
mod tuning;

//! Has the crate rebuilt when a migration is added: `sqlx::migrate!` embeds them, and Cargo does
//! not know that directory.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}

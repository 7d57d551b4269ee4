//! The trainings: a few specs, each of which must always give the same weights.

use nereid_client::Client;
use serde_json::{Value, json};

use crate::support::{add_digits, tiny_job};

/// Number of specs.
pub const COUNT: usize = 3;
/// The dataset they train on.
const DATASET: &str = "digits";

/// The job of a spec; so many attempts that only what is wrong can use them up.
pub fn train(spec: usize, model: &str) -> Value {
    let epochs = [60, 150, 300][spec];
    let mut job = tiny_job(model, DATASET, epochs);
    job["spec"]["fit"]["seed"] = json!(spec + 1);
    job["spec"]["callbacks"] = json!([{"type": "checkpoint", "every_steps": 300}]);
    job["max_attempts"] = json!(20);
    job
}

/// Registers the data.
pub async fn prepare(client: &Client) {
    add_digits(client, DATASET).await;
}

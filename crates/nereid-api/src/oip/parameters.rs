//! Parameters of requests and tensors; unknown ones are somebody else's and passed over.

use std::time::Duration;

use nereid_core::{inference::InferOptions, limits};
use serde::Deserialize;

use crate::numbers::Given;

/// The parameters that mean something here, as they came.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    /// Bytes of an input that follow the JSON.
    binary_data_size: Option<Given>,
    /// Whether an output comes as bytes.
    binary_data: Option<Given>,
    /// Whether outputs come as bytes unless they say otherwise.
    binary_data_output: Option<Given>,
    /// How many of the largest values of an output to answer, with their classes.
    classification: Option<Given>,
    priority: Option<Given>,
    timeout: Option<Given>,
    shared_memory_region: Option<Given>,
}

impl Parameters {
    /// Makes parameters of pairs; later ones win.
    pub(crate) fn from_pairs(pairs: impl Iterator<Item = (String, Given)>) -> Self {
        let mut found = Self::default();
        for (name, value) in pairs {
            let slot = match name.as_str() {
                "binary_data_size" => &mut found.binary_data_size,
                "binary_data" => &mut found.binary_data,
                "binary_data_output" => &mut found.binary_data_output,
                "classification" => &mut found.classification,
                "priority" => &mut found.priority,
                "timeout" => &mut found.timeout,
                "shared_memory_region" => &mut found.shared_memory_region,
                _ => continue,
            };
            *slot = Some(value);
        }
        found
    }

    /// Bytes of an input that follow the JSON, if it has none there.
    pub(crate) fn binary_data_size(&self) -> Result<Option<usize>, String> {
        let max = limits::MAX_INFERENCE_BODY_BYTES as u64;
        let size = whole("binary_data_size", self.binary_data_size.as_ref(), max)?;
        Ok(size.and_then(|n| usize::try_from(n).ok()))
    }

    /// Whether an output comes as bytes, if it says so.
    pub(crate) fn binary_data(&self) -> Result<Option<bool>, String> {
        flag("binary_data", self.binary_data.as_ref())
    }

    /// Whether outputs come as bytes unless they say otherwise.
    pub(crate) fn binary_data_output(&self) -> Result<bool, String> {
        let wanted = flag("binary_data_output", self.binary_data_output.as_ref())?;
        Ok(wanted.unwrap_or(false))
    }

    /// How many of an output's largest values are wanted with their classes.
    pub(crate) fn classification(&self) -> Result<Option<usize>, String> {
        let max = u64::from(u32::MAX);
        let count = whole("classification", self.classification.as_ref(), max)?;
        Ok(count
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0))
    }

    /// How urgent the request is and how long it may take.
    pub(crate) fn options(&self) -> Result<InferOptions, String> {
        let priority = whole("priority", self.priority.as_ref(), u64::from(u32::MAX))?;
        // Nobody waits for longer; 0 stands for no limit, as with Triton.
        let most = u64::from(u32::MAX) * 1_000_000;
        let timeout = whole("timeout", self.timeout.as_ref(), most)?.filter(|&us| us > 0);
        Ok(InferOptions {
            priority: priority.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            timeout: timeout.map(Duration::from_micros),
        })
    }

    /// Refuses memory shared with the client, which is perhaps on another machine.
    pub(crate) fn refuse_shared_memory(&self) -> Result<(), String> {
        match self.shared_memory_region {
            None => Ok(()),
            Some(_) => Err("shared memory is not supported; send the tensor's data".to_owned()),
        }
    }
}

fn flag(name: &str, given: Option<&Given>) -> Result<Option<bool>, String> {
    match given {
        None | Some(Given::Null) => Ok(None),
        Some(Given::Boolean(b)) => Ok(Some(*b)),
        Some(other) => Err(format!(
            "parameter {name:?} is true or false, not {}",
            other.what()
        )),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the value was held against the range before"
)]
fn whole(name: &str, given: Option<&Given>, max: u64) -> Result<Option<u64>, String> {
    let value = match given {
        None | Some(Given::Null) => return Ok(None),
        Some(Given::Number(n)) => *n,
        // gRPC has no unsigned parameter in the original protocol; some clients send text.
        Some(Given::Text(text)) => text
            .parse()
            .map_err(|_| format!("parameter {name:?} is a whole number, not text"))?,
        Some(other) => {
            let what = other.what();
            return Err(format!("parameter {name:?} is a whole number, not {what}"));
        }
    };
    if value.fract() == 0.0 && (0.0..=max as f64).contains(&value) {
        return Ok(Some(value as u64));
    }
    Err(format!(
        "parameter {name:?} is {value}, not a whole number between 0 and {max}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Parameters {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn known_parameters_are_checked_and_others_passed_over() {
        let found = read(r#"{"priority": 3, "timeout": 1500, "sequence_id": {"x": [1]}}"#);
        let options = found.options().unwrap();
        assert_eq!(options.priority, 3);
        assert_eq!(options.timeout, Some(Duration::from_micros(1500)));
        assert_eq!(read("{}").options(), Ok(InferOptions::default()));
        for bad in [
            r#"{"timeout": -1}"#,
            r#"{"timeout": 0.5}"#,
            r#"{"timeout": []}"#,
        ] {
            assert!(read(bad).options().is_err(), "{bad}");
        }
        assert!(
            read(r#"{"binary_data_size": 1e99}"#)
                .binary_data_size()
                .is_err()
        );
        assert!(read(r#"{"binary_data": 1}"#).binary_data().is_err());
        assert!(
            read(r#"{"shared_memory_region": "x"}"#)
                .refuse_shared_memory()
                .is_err()
        );
    }
}

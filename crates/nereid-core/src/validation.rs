//! Collects all mistakes of an input at once, each with a JSON pointer (RFC 6901).

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One mistake in an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Violation {
    /// Where: a JSON pointer into the request body, or a parameter's name.
    #[schema(example = "/spec/network/layers/2/units")]
    pub pointer: String,
    /// What kind of mistake, stable for programs.
    #[schema(example = "out_of_range")]
    pub code: String,
    /// What was given, which limit it broke and what would be right.
    pub detail: String,
}

/// A growing list of [`Violation`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

/// Reported violations per request; the rest is cut so that an answer stays small.
const MAX_REPORTED: usize = 100;

impl Violations {
    /// Records a mistake.
    pub fn push(&mut self, pointer: impl Into<String>, code: &str, detail: impl Into<String>) {
        if self.0.len() < MAX_REPORTED {
            self.0.push(Violation {
                pointer: pointer.into(),
                code: code.to_owned(),
                detail: detail.into(),
            });
        }
    }

    /// Records a mistake unless `ok`.
    pub fn check(&mut self, ok: bool, pointer: &str, code: &str, detail: impl FnOnce() -> String) {
        if !ok {
            self.push(pointer, code, detail());
        }
    }

    /// Records a value outside `min..=max`; a NaN is outside of every range.
    pub fn check_range<T: PartialOrd + std::fmt::Display + Copy>(
        &mut self,
        pointer: &str,
        value: T,
        min: T,
        max: T,
    ) {
        let inside = value >= min && value <= max;
        self.check(inside, pointer, "out_of_range", || {
            format!("{value} is not between {min} and {max}")
        });
    }

    /// Tells whether nothing was wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of mistakes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the recorded mistakes.
    #[must_use]
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Returns `value` if nothing was wrong.
    ///
    /// # Errors
    /// The violations, if any was recorded.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl From<Violation> for Violations {
    fn from(v: Violation) -> Self {
        Self(vec![v])
    }
}

/// Reads a JSON object field by field, recording every mistake instead of stopping at the first.
///
/// Serde alone stops at the first error; users want to mend a spec in one go.
#[derive(Debug)]
pub struct ObjectReader<'a> {
    map: Map<String, Value>,
    pointer: String,
    known: Vec<&'static str>,
    violations: &'a mut Violations,
}

impl<'a> ObjectReader<'a> {
    /// Starts reading `value`; `None` (and a violation) if it is no object.
    pub fn new(value: Value, pointer: &str, violations: &'a mut Violations) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self {
                map,
                pointer: pointer.to_owned(),
                known: Vec::new(),
                violations,
            }),
            other => {
                let found = json_type(&other);
                violations.push(
                    pointer,
                    "wrong_type",
                    format!("expected an object, got {found}"),
                );
                None
            }
        }
    }

    /// JSON pointer of a field of this object.
    #[must_use]
    pub fn pointer_to(&self, field: &str) -> String {
        format!("{}/{}", self.pointer, escape(field))
    }

    /// Takes a field out unparsed.
    pub fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.map.remove(field).filter(|v| !v.is_null())
    }

    /// Reads a field that may be absent or null.
    pub fn optional<T: DeserializeOwned>(&mut self, field: &'static str) -> Option<T> {
        let value = self.take(field)?;
        let pointer = self.pointer_to(field);
        parse(value, &pointer, self.violations)
    }

    /// Reads a field of a merge patch (RFC 7396): none if it is absent or wrong, `Some(None)` if it
    /// is null, which takes away what is there.
    pub fn patched<T: DeserializeOwned>(&mut self, field: &'static str) -> Option<Option<T>> {
        if self.map.get(field).is_some_and(Value::is_null) {
            self.take(field);
            return Some(None);
        }
        self.optional(field).map(Some)
    }

    /// Reads a field that must be there.
    pub fn required<T: DeserializeOwned>(&mut self, field: &'static str) -> Option<T> {
        if let Some(value) = self.take(field) {
            let pointer = self.pointer_to(field);
            parse(value, &pointer, self.violations)
        } else {
            let pointer = self.pointer_to(field);
            self.violations
                .push(pointer, "missing", format!("{field:?} is required"));
            None
        }
    }

    /// Reads a field that must be there, by a function of the caller's.
    pub fn required_with<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(Value, &str, &mut Violations) -> Option<T>,
    ) -> Option<T> {
        let pointer = self.pointer_to(field);
        if let Some(value) = self.take(field) {
            read(value, &pointer, self.violations)
        } else {
            self.violations
                .push(pointer, "missing", format!("{field:?} is required"));
            None
        }
    }

    /// Reads a field that may be absent or null, by a function of the caller's.
    ///
    /// `None` if it is there and wrong, `Some(None)` if it is not there.
    pub fn optional_with<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(Value, &str, &mut Violations) -> Option<T>,
    ) -> Option<Option<T>> {
        let pointer = self.pointer_to(field);
        match self.take(field) {
            None => Some(None),
            Some(value) => read(value, &pointer, self.violations).map(Some),
        }
    }

    /// Reads an array that may be absent, each element by a function of the caller's.
    pub fn list_with<T>(
        &mut self,
        field: &'static str,
        max: usize,
        mut read: impl FnMut(Value, &str, &mut Violations) -> Option<T>,
    ) -> Vec<T> {
        let pointer = self.pointer_to(field);
        match self.take(field) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.len() > max => {
                let detail = format!("{} items are more than the {max} allowed", items.len());
                self.violations.push(pointer, "too_many", detail);
                Vec::new()
            }
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .filter_map(|(i, item)| read(item, &format!("{pointer}/{i}"), self.violations))
                .collect(),
            Some(other) => {
                let detail = format!("expected an array, got {}", json_type(&other));
                self.violations.push(pointer, "wrong_type", detail);
                Vec::new()
            }
        }
    }

    /// Access to the list for checks between reads.
    pub fn violations(&mut self) -> &mut Violations {
        self.violations
    }

    /// Ends reading: whatever was not asked for is an unknown field.
    pub fn finish(self) {
        for field in self.map.keys() {
            self.violations.push(
                format!("{}/{}", self.pointer, escape(field)),
                "unknown_field",
                format!(
                    "unknown field {field:?}; known are {}",
                    self.known.join(", ")
                ),
            );
        }
    }

    /// Ends reading, handing out the fields that were not asked for.
    #[must_use]
    pub fn rest(self) -> Map<String, Value> {
        self.map
    }
}

/// Deserializes `value`, recording a violation with a pointer to the exact spot if it does not fit.
pub fn parse<T: DeserializeOwned>(
    value: Value,
    pointer: &str,
    violations: &mut Violations,
) -> Option<T> {
    match serde_path_to_error::deserialize(value) {
        Ok(parsed) => Some(parsed),
        Err(e) => {
            let mut at = format!("{pointer}{}", path_to_pointer(e.path()));
            let detail = e.inner().to_string();
            let code = if let Some(rest) = detail.strip_prefix("unknown field `") {
                // Where serde buffers (tagged enumerations), the path ends at the object.
                let field = escape(rest.split('`').next().unwrap_or_default());
                if !at.ends_with(&format!("/{field}")) {
                    at = format!("{at}/{field}");
                }
                "unknown_field"
            } else if detail.starts_with("missing field") {
                "missing"
            } else if detail.starts_with("unknown variant") {
                "unknown_value"
            } else {
                "invalid_value"
            };
            violations.push(at, code, detail);
            None
        }
    }
}

/// Turns a `serde_path_to_error` path into a JSON pointer.
#[must_use]
pub fn path_to_pointer(path: &serde_path_to_error::Path) -> String {
    use std::fmt::Write;

    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                let _ = write!(pointer, "/{index}");
            }
            Segment::Map { key } => {
                let _ = write!(pointer, "/{}", escape(key));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Escapes one reference token of a JSON pointer (RFC 6901, section 3).
#[must_use]
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

//! Rows of a CSV body; its cells are understood as those of a dataset are.

use csv::{ReaderBuilder, StringRecord, Trim};
use nereid_core::{Violations, limits::MAX_PREDICT_ROWS, models::Signature};

use crate::numbers::{Fault, Given, Numbers, Row};

/// Reads rows for a model. The first line may name the columns, in any order; without such a line
/// they come in the order of training.
///
/// # Errors
/// Bytes that are no CSV, and rows of another number of cells than there are columns.
pub(crate) fn rows(bytes: &[u8], signature: &Signature) -> Result<Vec<Row>, Violations> {
    let mut violations = Violations::default();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(bytes);
    let layout = Layout::of(signature);
    let mut header: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for (line, record) in reader.records().enumerate() {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                violations.push(
                    format!("/rows/{}", rows.len()),
                    "invalid_csv",
                    e.to_string(),
                );
                return Err(violations);
            }
        };
        if line == 0 && layout.is_header(&record) {
            header = Some(record.iter().map(str::to_owned).collect());
            continue;
        }
        let at = format!("/rows/{}", rows.len());
        let names = header.as_deref().or(layout.columns.as_deref());
        if let Some(names) = names
            && names.len() != record.len()
        {
            let (got, want) = (record.len(), names.len());
            let detail = format!("expected {want} cells, got {got}");
            violations.push(at, "shape_mismatch", detail);
            return Err(violations);
        }
        rows.push(layout.row(&record, names));
        // One too many is enough to refuse them.
        if rows.len() > MAX_PREDICT_ROWS {
            break;
        }
    }
    violations.into_result(rows)
}

/// What the cells of a model's rows are.
struct Layout {
    /// Names of the columns, if they have any.
    columns: Option<Vec<String>>,
    /// Whether columns are of mixed kind, so that any cell may be text.
    mixed: bool,
}

impl Layout {
    fn of(signature: &Signature) -> Self {
        let mixed = &signature.preprocessing.columns;
        let columns = if mixed.is_empty() {
            signature.columns.clone()
        } else {
            Some(mixed.iter().map(|c| c.name.clone()).collect())
        };
        Self {
            columns,
            mixed: !mixed.is_empty(),
        }
    }

    /// Tells whether a first line names columns: it has no number, and a known name where names are
    /// known.
    fn is_header(&self, record: &StringRecord) -> bool {
        let known = |cell: &str| match &self.columns {
            Some(columns) => columns.iter().any(|c| c == cell),
            None => true,
        };
        !record.iter().any(|cell| cell.parse::<f64>().is_ok()) && record.iter().any(known)
    }

    fn row(&self, record: &StringRecord, names: Option<&[String]>) -> Row {
        match (names, &self.columns) {
            (Some(names), Some(_)) => {
                let cells = names.iter().zip(record);
                let given = cells.map(|(name, cell)| (name.clone(), self.given(cell)));
                Row::Columns(given.collect())
            }
            // Names of features that have none in the model say nothing.
            _ => Row::Values(numbers(record)),
        }
    }

    fn given(&self, cell: &str) -> Given {
        match cell.parse() {
            _ if self.mixed => Given::Text(cell.to_owned()),
            Ok(number) => Given::Number(number),
            Err(_) if cell.is_empty() => Given::Null,
            Err(_) => Given::Text(cell.to_owned()),
        }
    }
}

fn numbers(record: &StringRecord) -> Numbers {
    let mut found = Numbers {
        shape: vec![record.len()],
        ..Numbers::default()
    };
    for (i, cell) in record.iter().enumerate() {
        #[expect(clippy::cast_possible_truncation, reason = "what overflows is refused")]
        let value = cell.parse::<f64>().unwrap_or(f64::NAN) as f32;
        found.values.push(value);
        if !value.is_finite() && found.fault.is_none() {
            let shown: String = cell.chars().take(40).collect();
            found.fault = Some(Fault {
                pointer: format!("/{i}"),
                code: "not_a_number",
                detail: format!("{shown:?} is no number that fits into FP32"),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use nereid_core::datasets::encoding::TableEncoder;

    use super::*;
    use crate::predict::{
        batch,
        tests::{mixed, signature},
    };

    fn values(csv: &str, signature: &Signature) -> Result<Vec<f32>, Vec<String>> {
        let columns = &signature.preprocessing.columns;
        let encoder = (!columns.is_empty()).then(|| TableEncoder::new(columns));
        let read = rows(csv.as_bytes(), signature);
        let batch = read.and_then(|rows| batch(&rows, signature, encoder.as_ref()));
        let pointers = |v: Violations| v.into_vec().into_iter().map(|v| v.pointer).collect();
        batch.map(|b| b.values).map_err(pointers)
    }

    #[test]
    fn a_header_names_columns_in_any_order_and_may_be_missing() {
        let table = signature(&[2], Some(&["a", "b"]));
        assert_eq!(values("b,a\n2,1\n", &table), Ok(vec![1.0, 2.0]));
        assert_eq!(
            values("\u{feff}1, 2\r\n3,4", &table),
            Ok(vec![1.0, 2.0, 3.0, 4.0])
        );
        let plain = signature(&[2, 2], None);
        assert_eq!(
            values("p,q,r,s\n1,2,3,4", &plain),
            Ok(vec![1.0, 2.0, 3.0, 4.0])
        );
        assert_eq!(values("1,2,3,4", &plain), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    }

    #[test]
    fn cells_of_mixed_columns_are_understood_as_in_training() {
        let signed = mixed();
        let found = values("town,flag,age\ny,yes,4\nnew,0,NA\n", &signed).unwrap();
        assert_eq!(found[..5], [4.0, 0.0, 0.0, 1.0, 1.0]);
        assert!(found[5].is_nan());
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        let table = signature(&[2], Some(&["a", "b"]));
        let wrong = |csv, pointer: &str| {
            assert_eq!(values(csv, &table), Err(vec![pointer.to_owned()]), "{csv}");
        };
        wrong("a,b\n1,2\n3\n", "/rows/1");
        wrong("a,b\n1,x\n", "/rows/0/b");
        wrong("a,b\n1,\n", "/rows/0/b");
        wrong("", "/rows");
        let plain = signature(&[2], None);
        assert_eq!(values("1,x", &plain), Err(vec!["/rows/0/1".to_owned()]));
    }
}

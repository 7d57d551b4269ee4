//! Reads one column of a table that is no feature, by which rows are told apart.

use nereid_core::{
    datasets::columns::ColumnSpec,
    engine::{DataInput, EngineError},
};

use super::{
    Check,
    rows::{Label, Rows},
};

/// Rows read between two checks whether to go on.
const CHECKED_ROWS: usize = 1 << 14;

/// A cell: its text, and the number that it may be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) number: Option<f64>,
}

/// Reads the column `column` of each row.
///
/// It is read as if it were the label, so that each format does it in its own way.
pub(crate) fn read_keys(
    input: &DataInput,
    column: &str,
    check: &mut Check<'_>,
) -> Result<Vec<Key>, EngineError> {
    let mut source = input.source.clone();
    source.columns.remove(column);
    let labels = source.label_column.replace(column.to_owned()).into_iter();
    let labels = labels.chain(std::mem::take(&mut source.label_columns));
    let ignored = labels.map(|label| (label, ColumnSpec::Ignore {}));
    source.columns.extend(ignored);
    let mut rows = Rows::open(&source, &*input.files, Some(&input.schema), check)?;
    let (mut row, mut label) = (Vec::new(), Label::default());
    let mut keys = Vec::new();
    while rows.next(&mut row, &mut label)? {
        if keys.len() % CHECKED_ROWS == 0 {
            check()?;
        }
        keys.push(Key {
            name: label.name(),
            number: label.number(),
        });
    }
    Ok(keys)
}

//! Data too large for any store here: read from its source again, from the start to the end.

use std::collections::HashMap;

use nereid_core::{
    datasets::DatasetSchema,
    engine::{DataInput, EngineError},
};

use super::{
    rows::{Label, Rows},
    samples::Width,
};

/// A source that is read again and again.
pub(super) struct Replay {
    pub(super) input: DataInput,
    /// Schema of the training data.
    pub(super) schema: DatasetSchema,
    pub(super) width: Width,
}

/// One reading of a source.
pub(super) struct Stream {
    rows: Rows,
    /// The row that is read next.
    next: u32,
    /// Rows that were read and are still to be asked for, as they are stored.
    held: HashMap<u32, Vec<u8>>,
    /// Used up ones, for their memory.
    spare: Vec<Vec<u8>>,
    values: Vec<f32>,
    label: Label,
}

impl Replay {
    /// Puts a row, as it is stored, in place of what `bytes` held.
    ///
    /// Rows that are `wanted` later are held until then; one that was passed and not held is
    /// looked for from the start again.
    pub(super) fn read(
        &self,
        row: u32,
        stream: &mut Option<Stream>,
        wanted: &dyn Fn(u32) -> bool,
        bytes: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let mut open = match stream.take() {
            Some(stream) if row >= stream.next || stream.held.contains_key(&row) => stream,
            _ => self.open()?,
        };
        while open.next <= row {
            let at = open.next;
            open.advance()?;
            if at == row || wanted(at) {
                let mut record = open.spare.pop().unwrap_or_default();
                record.clear();
                self.width.encode(&open.values, &mut record);
                open.held.insert(at, record);
            }
        }
        if let Some(mut record) = open.held.remove(&row) {
            std::mem::swap(bytes, &mut record);
            open.spare.push(record);
        }
        *stream = Some(open);
        Ok(())
    }

    fn open(&self) -> Result<Stream, EngineError> {
        let (source, files) = (&self.input.source, &*self.input.files);
        let rows = Rows::open(source, files, Some(&self.schema), &mut || Ok(()))?;
        Ok(Stream {
            rows,
            next: 0,
            held: HashMap::new(),
            spare: Vec::new(),
            values: Vec::new(),
            label: Label::default(),
        })
    }
}

impl Stream {
    fn advance(&mut self) -> Result<(), EngineError> {
        if !self.rows.next(&mut self.values, &mut self.label)? {
            let place = self.rows.label_place();
            return Err(place.fault(
                "truncated",
                "it has fewer rows than when it was read before",
            ));
        }
        self.next += 1;
        Ok(())
    }
}

//! The local files of a part, until they are uploaded.

use std::{
    io::{self, BufWriter},
    path::Path,
};

use tempfile::{NamedTempFile, TempPath};

/// A part whose files are complete on the local disk.
pub(super) struct Finished {
    pub(super) part: u32,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) seconds: f64,
    pub(super) predictions: Option<TempPath>,
    pub(super) rejections: Option<TempPath>,
}

/// A file that is made when there is something to write.
#[derive(Default)]
pub(super) struct Lazy(Option<BufWriter<NamedTempFile>>);

impl Lazy {
    /// Returns the file, and whether nothing is in it yet.
    pub(super) fn open(
        &mut self,
        folder: &Path,
    ) -> io::Result<(&mut BufWriter<NamedTempFile>, bool)> {
        let first = self.0.is_none();
        if first {
            self.0 = Some(BufWriter::new(NamedTempFile::new_in(folder)?));
        }
        match &mut self.0 {
            Some(file) => Ok((file, first)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn close(self) -> io::Result<Option<TempPath>> {
        let Some(file) = self.0 else { return Ok(None) };
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Some(file.into_temp_path()))
    }
}

/// A part under way.
#[derive(Default)]
pub(super) struct Part {
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) predictions: Lazy,
    pub(super) rejections: Lazy,
}

impl Part {
    pub(super) fn finish(self, part: u32, seconds: f64) -> io::Result<Finished> {
        Ok(Finished {
            part,
            rows: self.rows,
            rejected: self.rejected,
            seconds,
            predictions: self.predictions.close()?,
            rejections: self.rejections.close()?,
        })
    }
}

//! Objects for code that blocks, such as the engine's decoders on threads of their own.

use std::io::{BufRead, Read, Result};

use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

use crate::{ObjectError, ObjectInfo, ObjectReader, Objects, S3Uri};

/// Content of an object for a blocking reader; resumes like [`ObjectReader`].
#[derive(Debug)]
pub struct BlockingReader {
    info: ObjectInfo,
    inner: SyncIoBridge<ObjectReader>,
}

impl BlockingReader {
    /// The object being read.
    #[must_use]
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.inner.read(buf)
    }
}

impl BufRead for BlockingReader {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

impl Objects {
    /// Opens an object for a thread that may block; its bytes arrive by way of `runtime`.
    ///
    /// Neither this nor the reader may be used on a thread that runs asynchronous tasks: tokio
    /// panics there. Use `spawn_blocking` or a thread of your own.
    ///
    /// # Errors
    /// Those of [`Objects::get_stream`].
    pub fn open_blocking(
        &self,
        uri: &S3Uri,
        if_match: Option<&str>,
        runtime: Handle,
    ) -> std::result::Result<BlockingReader, ObjectError> {
        let reader = runtime.block_on(self.get_stream(uri, if_match))?;
        Ok(BlockingReader {
            info: reader.info().clone(),
            inner: SyncIoBridge::new_with_handle(reader, runtime),
        })
    }
}

//! The objects of a file that is made of several: each opened when the one before was read.
//!
//! They come as one tar. Of that, an object is lent to its reader until the next one is asked for.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use nereid_core::{
    datasets::{DatasetSource, FileRole, FileUris, encoding::Cell},
    engine::{DataFiles, EngineError},
};

use super::{
    archive::Archive,
    bytes::{Budget, Place, Source},
    tables::{Records, clip},
};

/// Objects, one after the other.
pub(super) struct Shards {
    archive: Arc<Mutex<Archive>>,
    place: Place,
    budget: Budget,
}

/// An object.
pub(super) struct Shard {
    /// Its path below the file's prefix.
    pub(super) name: String,
    /// Its stored size.
    pub(super) size: u64,
    part: Part,
    place: Place,
    budget: Budget,
}

impl Shard {
    /// Decompresses it if it is compressed.
    pub(super) fn open(self) -> Result<Source, EngineError> {
        Source::decode(self.part, self.place, self.budget)
    }

    /// Reads all of it as it is stored.
    pub(super) fn content(mut self) -> Result<Vec<u8>, EngineError> {
        let mut content = Vec::new();
        let read = self.part.read_to_end(&mut content);
        read.map_err(|e| self.place.io(e))?;
        Ok(content)
    }
}

impl Shards {
    pub(super) fn open(files: &dyn DataFiles, role: FileRole) -> Result<Self, EngineError> {
        let source = Source::open_many(files, role)?;
        Ok(Self {
            place: source.place.clone(),
            archive: Arc::new(Mutex::new(Archive::new(source))),
            budget: Budget::default(),
        })
    }

    /// The file as a whole.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Opens the next object; whatever the last one's reader left unread is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Shard>, EngineError> {
        let member = {
            let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
            archive.next()?
        };
        let Some(member) = member else {
            return Ok(None);
        };
        let part = Part {
            archive: Arc::clone(&self.archive),
            left: member.size,
        };
        Ok(Some(Shard {
            place: self.place.within(&member.name),
            name: member.name,
            size: member.size,
            part,
            budget: self.budget.clone(),
        }))
    }
}

/// The stored bytes of one object.
struct Part {
    archive: Arc<Mutex<Archive>>,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let n = archive.read_part(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Lines of all objects, as if they stood in one.
pub(super) struct Lines {
    shards: Shards,
    current: Option<Box<dyn Read + Send>>,
}

impl Lines {
    /// Reads the lines of a file's objects.
    pub(super) fn open(files: &dyn DataFiles, role: FileRole) -> Result<Source, EngineError> {
        let shards = Shards::open(files, role)?;
        let place = shards.place().clone();
        let lines = Self {
            shards,
            current: None,
        };
        Ok(Source {
            reader: Box::new(lines),
            place,
        })
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(current) = &mut self.current {
                let n = current.read(buffer)?;
                if n > 0 {
                    return Ok(n);
                }
                self.current = None;
                // The last line of an object may lack its end; an empty line is no record.
                buffer[0] = b'\n';
                return Ok(1);
            }
            let next = self.shards.next();
            match next.and_then(|shard| shard.map(Shard::open).transpose()) {
                Ok(Some(source)) => self.current = Some(source.reader),
                Ok(None) => return Ok(0),
                Err(EngineError::Io { source, .. }) => return Err(source),
                Err(e) => return Err(io::Error::other(e)),
            }
        }
    }
}

/// Opens the table in an object; rows before it are counted too.
type Open = Box<dyn Fn(Source, u64) -> Result<Box<dyn Records>, EngineError> + Send>;

/// Records of tables with the same columns, one after the other.
pub(super) struct ShardRecords {
    shards: Shards,
    open: Open,
    /// Columns of the first table.
    columns: Vec<String>,
    current: Box<dyn Records>,
    /// Where the current table has the columns of the first.
    at: Vec<usize>,
    rows: u64,
    /// Whether all was read: what is found wrong afterwards is wrong with the file as a whole.
    done: bool,
}

impl ShardRecords {
    /// Opens the first of a file's tables.
    pub(super) fn new(
        files: &dyn DataFiles,
        open: impl Fn(Source, u64) -> Result<Box<dyn Records>, EngineError> + Send + 'static,
    ) -> Result<Self, EngineError> {
        let mut shards = Shards::open(files, FileRole::Data)?;
        let Some(first) = shards.next()? else {
            return Err(shards.place().fault("empty", "it is made of no object"));
        };
        let current = open(first.open()?, 0)?;
        let columns = current.columns().to_vec();
        Ok(Self {
            shards,
            open: Box::new(open),
            at: (0..columns.len()).collect(),
            columns,
            current,
            rows: 0,
            done: false,
        })
    }

    /// Opens the next table, whose columns must be the first one's, in whatever order.
    fn advance_shard(&mut self) -> Result<bool, EngineError> {
        let Some(shard) = self.shards.next()? else {
            return Ok(false);
        };
        let next = (self.open)(shard.open()?, self.rows)?;
        let known: HashMap<&String, usize> = next.columns().iter().zip(0..).collect();
        let find = |column: &String| {
            let missing = || {
                let detail = format!("column {:?} of the first object is not there", clip(column));
                next.place().fault("missing_column", detail)
            };
            known.get(column).copied().ok_or_else(missing)
        };
        let at: Vec<usize> = self.columns.iter().map(find).collect::<Result<_, _>>()?;
        if known.len() > at.len() {
            let first: HashSet<&String> = self.columns.iter().collect();
            let other = next.columns().iter().find(|c| !first.contains(c));
            let other = clip(other.map_or("", String::as_str));
            let detail = format!("column {other:?} is not in the first object");
            return Err(next.place().fault("unexpected_column", detail));
        }
        self.at = at;
        self.current = next;
        Ok(true)
    }
}

impl Records for ShardRecords {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn advance(&mut self) -> Result<bool, EngineError> {
        while !self.current.advance()? {
            if !self.advance_shard()? {
                self.done = true;
                return Ok(false);
            }
        }
        self.rows += 1;
        Ok(true)
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>, EngineError> {
        match self.at.get(column) {
            Some(&at) => self.current.cell(at),
            None => Ok(Cell::Missing),
        }
    }

    fn place(&self) -> &Place {
        if self.done {
            self.shards.place()
        } else {
            self.current.place()
        }
    }
}

/// Refuses several objects where a format is read from one.
pub(super) fn demand_one(source: &DatasetSource) -> Result<(), EngineError> {
    if source.files.values().any(FileUris::is_many) {
        let format = source.format.as_str();
        let detail = format!("format {format} is read from one object, not from several");
        return Err(EngineError::InvalidInput(detail));
    }
    Ok(())
}

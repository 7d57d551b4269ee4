//! Several objects as one tar, made while it is read, some of them fetched in advance.

use std::{
    io::{self, Read},
    sync::Arc,
};

use ::tar::{EntryType, Header};
use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream};
use tokio::{io::AsyncReadExt, runtime::Handle, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::Member;
use crate::{ObjectError, Objects};

/// Objects fetched at a time, if they are small.
const AHEAD: usize = 32;
/// Largest object that is fetched whole and in advance, in bytes.
const SMALL: u64 = 512 << 10;
/// Pieces that wait for the reader, none larger than a small object.
const WAITING: usize = 4;
/// Bytes of a larger object that are handed on at a time.
const PIECE: usize = 256 << 10;
const BLOCK: usize = 512;
/// Longest name that a tar's header has room for.
const HEADER_NAME: usize = 100;

type Pieces = mpsc::Sender<Result<Bytes, ObjectError>>;

/// Reads objects as members of a tar without blocks at its end.
///
/// Member by member it depends on nothing but name, size and content: there are no times and no
/// owners in it.
pub(super) struct TarReader {
    pieces: mpsc::Receiver<Result<Bytes, ObjectError>>,
    piece: Bytes,
    /// Bytes to come.
    left: u64,
    _fetching: AbortOnDropHandle<()>,
}

impl TarReader {
    /// Begins to fetch.
    pub(super) fn open(objects: &Objects, members: Arc<[Member]>, runtime: &Handle) -> Self {
        let (sender, pieces) = mpsc::channel(WAITING);
        let left = members.iter().map(length).sum();
        let fetching = fetch_all(objects.clone(), members, sender, runtime.clone());
        Self {
            pieces,
            piece: Bytes::new(),
            left,
            _fetching: AbortOnDropHandle::new(runtime.spawn(fetching)),
        }
    }

    /// Returns how many bytes are left.
    pub(super) fn length(&self) -> u64 {
        self.left
    }
}

impl Read for TarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.piece = match self.pieces.blocking_recv() {
                Some(piece) => piece.map_err(io::Error::other)?,
                // It must not look like an end.
                None => return Err(io::Error::other("the objects are not fetched any more")),
            };
        }
        let n = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

/// What was fetched in advance.
enum Fetched {
    /// The whole member.
    Whole(Bytes),
    /// Nothing: it is too large for that.
    Nothing(usize),
}

async fn fetch_all(objects: Objects, members: Arc<[Member]>, pieces: Pieces, runtime: Handle) {
    // Each has a task of its own, so that all make progress while the reader is busy.
    let fetch = |i: usize| {
        let fetching = fetch(objects.clone(), Arc::clone(&members), i);
        let task = AbortOnDropHandle::new(runtime.spawn(fetching));
        async move { (i, task.await) }
    };
    let mut fetched = stream::iter(0..members.len()).map(fetch).buffered(AHEAD);
    while let Some((i, result)) = fetched.next().await {
        let broken = |e: tokio::task::JoinError| {
            let uri = &members[i].pin.uri;
            ObjectError::unavailable(uri, "reading it broke off", Some(e.into()))
        };
        let sent = match result.map_err(broken).and_then(|fetched| fetched) {
            Ok(Fetched::Whole(member)) => pieces.send(Ok(member)).await.is_ok(),
            Ok(Fetched::Nothing(i)) => match stream_large(&objects, &members[i], &pieces).await {
                Ok(sent) => sent,
                Err(e) => {
                    let _ = pieces.send(Err(e)).await;
                    false
                }
            },
            Err(e) => {
                let _ = pieces.send(Err(e)).await;
                false
            }
        };
        if !sent {
            return;
        }
    }
}

async fn fetch(objects: Objects, members: Arc<[Member]>, i: usize) -> Result<Fetched, ObjectError> {
    let member = &members[i];
    let pin = &member.pin;
    if pin.bytes > SMALL {
        return Ok(Fetched::Nothing(i));
    }
    let mut out = BytesMut::with_capacity(usize::try_from(length(member)).unwrap_or_default());
    out.extend_from_slice(&header(member));
    let start = out.len();
    let mut reader = objects.get_stream(&pin.uri, Some(&pin.etag)).await?;
    check_size(member, reader.info().bytes)?;
    while reader
        .read_buf(&mut out)
        .await
        .map_err(|e| ObjectError::from_io(e, &pin.uri))?
        > 0
    {}
    check_size(member, (out.len() - start) as u64)?;
    out.resize(out.len() + padding(pin.bytes), 0);
    Ok(Fetched::Whole(out.freeze()))
}

/// Hands a large object on in pieces; `false` if nobody reads them any more.
async fn stream_large(
    objects: &Objects,
    member: &Member,
    pieces: &Pieces,
) -> Result<bool, ObjectError> {
    let pin = &member.pin;
    let mut reader = objects.get_stream(&pin.uri, Some(&pin.etag)).await?;
    check_size(member, reader.info().bytes)?;
    if pieces.send(Ok(header(member).into())).await.is_err() {
        return Ok(false);
    }
    let mut read = 0;
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        while piece.len() < PIECE
            && reader
                .read_buf(&mut piece)
                .await
                .map_err(|e| ObjectError::from_io(e, &pin.uri))?
                > 0
        {}
        read += piece.len() as u64;
        if piece.is_empty() {
            break;
        }
        if pieces.send(Ok(piece.freeze())).await.is_err() {
            return Ok(false);
        }
    }
    check_size(member, read)?;
    let padding = vec![0; padding(pin.bytes)];
    Ok(pieces.send(Ok(padding.into())).await.is_ok())
}

fn check_size(member: &Member, bytes: u64) -> Result<(), ObjectError> {
    let pin = &member.pin;
    if bytes == pin.bytes {
        return Ok(());
    }
    Err(ObjectError::ChecksumMismatch {
        target: pin.uri.to_string(),
        reason: format!("it has {bytes} bytes instead of {}", pin.bytes),
    })
}

/// Bytes that fill up the last block of a content.
fn padding(bytes: u64) -> usize {
    let over = usize::try_from(bytes % BLOCK as u64).unwrap_or_default();
    (BLOCK - over) % BLOCK
}

/// Bytes of a member in the tar.
fn length(member: &Member) -> u64 {
    let bytes = member.pin.bytes;
    let name = member.name.len() as u64;
    let long = if name > HEADER_NAME as u64 {
        BLOCK as u64 + name + 1 + padding(name + 1) as u64
    } else {
        0
    };
    long + BLOCK as u64 + bytes + padding(bytes) as u64
}

/// What stands before a member's content.
fn header(member: &Member) -> Vec<u8> {
    let name = member.name.as_bytes();
    let mut out = Vec::with_capacity(BLOCK);
    if name.len() > HEADER_NAME {
        let size = name.len() as u64 + 1;
        out.extend(block(b"././@LongLink", size, EntryType::GNULongName));
        out.extend(name);
        out.resize(out.len() + 1 + padding(size), 0);
    }
    let short = &name[..name.len().min(HEADER_NAME)];
    out.extend(block(short, member.pin.bytes, EntryType::Regular));
    out
}

fn block(name: &[u8], size: u64, kind: EntryType) -> [u8; BLOCK] {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{S3Uri, datasets::Pin};

    #[test]
    fn names_of_all_lengths_and_sizes_are_read_back() {
        let mut tar = Vec::new();
        let mut total = 0;
        let names = [
            "a.png",
            &"d/".repeat(50),
            &format!("{}x.png", "ä/../".repeat(60)),
        ];
        for (i, name) in names.iter().enumerate() {
            let bytes = [0, 512, 700][i];
            let member = Member {
                name: (*name).to_owned(),
                pin: Pin {
                    uri: S3Uri::new("data", "x").unwrap(),
                    bytes,
                    etag: String::new(),
                },
            };
            tar.extend(header(&member));
            tar.resize(
                tar.len() + usize::try_from(bytes).unwrap() + padding(bytes),
                0,
            );
            total += length(&member);
            assert_eq!(tar.len() as u64, total, "{name}");
        }
        let mut archive = ::tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(Result::unwrap);
        let read: Vec<_> = entries
            .map(|e| {
                (
                    String::from_utf8(e.path_bytes().into_owned()).unwrap(),
                    e.size(),
                )
            })
            .collect();
        let expected = names.map(str::to_owned).into_iter().zip([0, 512, 700]);
        assert!(read.into_iter().eq(expected));
    }
}

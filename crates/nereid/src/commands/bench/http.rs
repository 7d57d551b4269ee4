//! An HTTP client that costs next to nothing: on one machine its time would be taken for the
//! server's. Keeps one connection alive and knows only what `POST /v1/jobs` needs.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::load::Submitter;

/// Submits through the API.
pub struct HttpClient {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl HttpClient {
    /// Connects, and prepares the one request that it will repeat.
    pub async fn connect(api: SocketAddr, secret: &str, body: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(api).await.context("the API")?;
        stream.set_nodelay(true)?;
        let length = body.len();
        let request = format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {secret}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        Ok(Self {
            stream,
            request: request.into_bytes(),
            answer: Vec::with_capacity(4096),
        })
    }
}

impl Submitter for HttpClient {
    async fn submit(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        let length = loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the API closed the connection");
            if let Some(length) = length_if_whole_head(&self.answer)? {
                break length;
            }
        };
        while self.answer.len() < length {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the API closed the connection");
        }
        if !self.answer.starts_with(b"HTTP/1.1 201 ") {
            bail!("the API answered {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
}

/// Returns the length of the whole answer once its head is there.
pub(super) fn length_if_whole_head(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..head]).context("head of the answer")?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the answer has no content-length")?
        .1;
    let body: usize = length.trim().parse().context("content-length")?;
    Ok(Some(head + 4 + body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_where_an_answer_ends() {
        let answer = b"HTTP/1.1 201 Created\r\nx: y\r\nContent-Length: 2\r\n\r\n{}";
        let whole = length_if_whole_head(answer).unwrap();
        assert_eq!(whole, Some(answer.len()));
        assert_eq!(length_if_whole_head(&answer[..30]).unwrap(), None);
        assert!(length_if_whole_head(b"HTTP/1.1 201 Created\r\n\r\n").is_err());
    }
}

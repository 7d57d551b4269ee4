//! Forms with files (RFC 7578), read out of a body that is already there.

use bytes::Bytes;
use http::HeaderMap;
use nereid_core::limits::{MAX_PART_HEAD_BYTES, MAX_PREDICT_ROWS};

/// Longest boundary in characters (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Most parts of one form: an image for each row, and some options.
const MAX_PARTS: usize = MAX_PREDICT_ROWS + 16;

/// A field or file of a form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Name of the field.
    pub(crate) name: String,
    /// Whether it is a file.
    pub(crate) file: bool,
    /// What it holds.
    pub(crate) content: Bytes,
}

/// Returns the boundary that a content type names, if it is that of a form.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let (media, parameters) = given.split_once(';')?;
    if !media.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=MAX_BOUNDARY)
        .contains(&boundary.len())
        .then_some(boundary)
}

/// Splits a form into its parts.
///
/// # Errors
/// A body that is no form with this boundary, as a sentence.
pub(crate) fn parts(body: &Bytes, boundary: &str) -> Result<Vec<Part>, String> {
    let delimiter = format!("--{boundary}");
    let between = format!("\r\n{delimiter}");
    let mut at = if body.starts_with(delimiter.as_bytes()) {
        delimiter.len()
    } else {
        let preamble = find(body, between.as_bytes());
        preamble.ok_or("the body lacks its boundary")? + between.len()
    };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        // Blanks may follow a boundary.
        let line = find(&rest[..rest.len().min(MAX_BOUNDARY)], b"\r\n");
        let line = line.ok_or("a boundary is not followed by a new line")?;
        if !rest[..line].iter().all(u8::is_ascii_whitespace) {
            return Err("a boundary is followed by something else".to_owned());
        }
        at += line + 2;
        let rest = &body[at..];
        let n = parts.len();
        let head = find(&rest[..rest.len().min(MAX_PART_HEAD_BYTES)], b"\r\n\r\n");
        let head = head.ok_or_else(|| {
            format!("part {n} has no end of its head within {MAX_PART_HEAD_BYTES} bytes")
        })?;
        let start = at + head + 4;
        let length = find(&body[start..], between.as_bytes());
        let length = length.ok_or_else(|| format!("part {n} has no end"))?;
        let (name, file) = describe(&rest[..head])
            .ok_or_else(|| format!("part {n} has no Content-Disposition: form-data with a name"))?;
        parts.push(Part {
            name,
            file,
            content: body.slice(start..start + length),
        });
        if parts.len() > MAX_PARTS {
            return Err(format!("there are more than {MAX_PARTS} parts"));
        }
        at = start + length + between.len();
    }
}

/// Returns a part's name and whether it is a file.
fn describe(head: &[u8]) -> Option<(String, bool)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut found = None;
    let mut image = false;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':')?;
        if field.eq_ignore_ascii_case("content-disposition") {
            let (kind, parameters) = value.split_once(';')?;
            if !kind.trim().eq_ignore_ascii_case("form-data") {
                return None;
            }
            let file = parameter(parameters, "filename").is_some()
                || parameter(parameters, "filename*").is_some();
            found = Some((parameter(parameters, "name")?, file));
        } else if field.eq_ignore_ascii_case("content-type") {
            image = value.trim().to_ascii_lowercase().starts_with("image/");
        }
    }
    found.map(|(name, file)| (name, file || image))
}

/// Finds a parameter of a header, quoted or not.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = text.split_once('=')?;
        let name = name.trim().trim_start_matches(';').trim();
        let (value, after) = if let Some(quoted) = rest.trim_start().strip_prefix('"') {
            unquote(quoted)?
        } else {
            let (value, after) = rest.split_once(';').unwrap_or((rest, ""));
            (value.trim().to_owned(), after)
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = after;
    }
}

/// Reads on to the end of a quoted text; returns it and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((i, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Finds the first place of a needle that begins with a carriage return.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|&b| b == needle[0]) {
        if hay[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_falls_into_its_parts() {
        let body = Bytes::from_static(
            b"--x\r\nContent-Disposition: form-data; name=\"top_k\"\r\n\r\n3\r\n\
              --x\r\ncontent-disposition: form-data; name=\"a \\\"b\\\"\"; filename=\"c;d.png\"\r\nContent-Type: image/png\r\n\r\n\x89P\r\n--y\r\n--x--\r\n",
        );
        let found = parts(&body, "x").unwrap();
        assert_eq!((found[0].name.as_str(), found[0].file), ("top_k", false));
        assert_eq!(found[0].content, "3");
        assert_eq!((found[1].name.as_str(), found[1].file), ("a \"b\"", true));
        assert_eq!(found[1].content, &b"\x89P\r\n--y"[..]);
        for cut in 0..body.len() - 4 {
            assert!(parts(&body.slice(..cut), "x").is_err(), "{cut}");
        }
    }

    #[test]
    fn the_boundary_may_be_quoted() {
        let of = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            boundary(&headers)
        };
        assert_eq!(
            of("multipart/form-data; boundary=ab").as_deref(),
            Some("ab")
        );
        let quoted = of("Multipart/Form-Data; charset=utf-8; boundary=\"a b\"");
        assert_eq!(quoted.as_deref(), Some("a b"));
        assert_eq!(of("multipart/form-data"), None);
        assert_eq!(of("text/csv; boundary=x"), None);
    }

    proptest! {
        /// Whatever bytes a client sends, they are split or refused.
        #[test]
        fn any_bytes_are_split_or_refused(bytes in prop::collection::vec(prop::sample::select(b"-x\r\n:;=\"a ".to_vec()), 0..200)) {
            let _ = parts(&Bytes::from(bytes.clone()), "x");
            let body = [b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n".to_vec(), bytes].concat();
            let _ = parts(&Bytes::from(body), "x");
        }
    }
}

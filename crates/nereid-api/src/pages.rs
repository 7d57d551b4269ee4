//! Pagination: page tokens that only this installation can make, and lists as clients see them.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use nereid_core::limits;
use nereid_store::{Page, PageRequest};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::IntoParams;

use crate::{
    extract::{Parameters, QueryReader},
    problem::{Code, Problem},
};

/// Format of page tokens.
const VERSION: u8 = 1;
/// Bytes of the tag that binds a token to this installation and list.
const TAG_LEN: usize = 12;
/// Longest page token in characters.
const MAX_TOKEN_LEN: usize = 1024;

/// Makes and reads page tokens.
///
/// A token is tagged with the installation's secret and the list's name, so that positions come
/// back exactly as the store handed them out: no forged one ever reaches a statement.
pub(crate) struct PageTokens {
    secret: String,
}

impl PageTokens {
    pub(crate) fn new(secret: String) -> Self {
        Self { secret }
    }

    /// Turns a position of `list` into a token.
    pub(crate) fn seal(&self, list: &str, position: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.tag(list, position));
        bytes.extend(position.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Turns a token of `list` back into its position.
    pub(crate) fn open(&self, list: &str, token: &str) -> Result<String, Problem> {
        self.try_open(list, token).ok_or_else(|| {
            let detail = "page_token is none that this list has handed out; start without one.";
            Problem::new(Code::InvalidPageToken, detail)
        })
    }

    fn try_open(&self, list: &str, token: &str) -> Option<String> {
        if token.len() > MAX_TOKEN_LEN {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (tag, position) = rest.split_at_checked(TAG_LEN)?;
        let position = std::str::from_utf8(position).ok()?;
        let genuine: bool = self.tag(list, position).ct_eq(tag).into();
        (*version == VERSION && genuine).then(|| position.to_owned())
    }

    fn tag(&self, list: &str, position: &str) -> [u8; TAG_LEN] {
        let mut hash = Sha256::new();
        for part in [self.secret.as_str(), "page", list, position] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&digest[..TAG_LEN]);
        tag
    }
}

/// Which page of a list.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Most items of the page.
    #[param(minimum = 1, maximum = 200, default = 50, required = false)]
    page_size: u32,
    /// `next_page_token` of the page before.
    #[param(max_length = 1024, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
}

impl Parameters for Paging {
    fn read(reader: &mut QueryReader) -> Self {
        let page_size = reader
            .number("page_size", 1, limits::MAX_PAGE_SIZE)
            .unwrap_or(limits::DEFAULT_PAGE_SIZE);
        let page_token = reader.text("page_token").map(ToOwned::to_owned);
        Self {
            page_size,
            page_token,
        }
    }
}

impl Paging {
    /// Returns what the store is to be asked for.
    pub(crate) fn request(&self, tokens: &PageTokens, list: &str) -> Result<PageRequest, Problem> {
        let after = self
            .page_token
            .as_deref()
            .map(|t| tokens.open(list, t))
            .transpose()?;
        Ok(PageRequest {
            size: self.page_size,
            after,
        })
    }
}

/// Seals the position after a page.
pub(crate) fn split<T>(page: Page<T>, tokens: &PageTokens, list: &str) -> (Vec<T>, Option<String>) {
    let next = page.next.map(|position| tokens.seal(list, &position));
    (page.items, next)
}

/// Defines the page type of a list.
macro_rules! listing {
    ($(#[$doc:meta])* $name:ident, $item:ty) => {
        $(#[$doc])*
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        pub(crate) struct $name {
            /// Items of this page.
            pub(crate) items: Vec<$item>,
            /// Token of the next page; absent at the end.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) next_page_token: Option<String>,
        }

        impl $name {
            pub(crate) fn new(
                page: nereid_store::Page<$item>,
                tokens: &crate::pages::PageTokens,
                list: &str,
            ) -> Self {
                let (items, next_page_token) = crate::pages::split(page, tokens, list);
                Self { items, next_page_token }
            }
        }
    };
}
pub(crate) use listing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_nothing_else_does() {
        let tokens = PageTokens::new("secret".to_owned());
        let token = tokens.seal("jobs", "2026-01-01|abc");
        assert_eq!(tokens.open("jobs", &token).unwrap(), "2026-01-01|abc");
        let forged = PageTokens::new("other".to_owned()).seal("jobs", "'; drop");
        for bad in [
            "",
            "x",
            "AAAA",
            "\0",
            &forged,
            &format!("{token}AAAA"),
            &"A".repeat(2000),
        ] {
            assert_eq!(
                tokens.open("jobs", bad).unwrap_err().kind(),
                Code::InvalidPageToken
            );
        }
        assert!(
            tokens.open("models", &token).is_err(),
            "a token of another list"
        );
    }
}

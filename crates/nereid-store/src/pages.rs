//! Keyset pagination: a page goes on after the last key of the one before.

use std::{fmt::Display, str::FromStr};

use crate::StoreError;

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Most items; already clamped by the API.
    pub size: u32,
    /// Opaque position after which the page starts, as handed out by [`Page::next`].
    pub after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// Items.
    pub items: Vec<T>,
    /// Position to continue from; none at the end.
    pub next: Option<String>,
}

impl PageRequest {
    /// Reads the position as a key of the list.
    pub(crate) fn position<K: FromStr>(&self) -> Result<Option<K>, StoreError> {
        let parse = |token: &String| {
            token.parse().map_err(|_| StoreError::Conflict {
                code: "invalid_page_token",
                what: format!("{token:?} is no position in this list; start again without one"),
            })
        };
        self.after.as_ref().map(parse).transpose()
    }

    /// Rows to ask for: one more than the page holds tells whether another page follows.
    pub(crate) fn limit(&self) -> i64 {
        i64::from(self.size.max(1)) + 1
    }

    /// Cuts `rows` to the page and notes the `key` of its last row if more follow.
    pub(crate) fn page<R, T, K: Display>(
        &self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> K,
        item: impl Fn(R) -> Result<T, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let size = usize::try_from(self.size.max(1)).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|r| key(r).to_string());
        let items = rows.into_iter().map(item).collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_a_position_only_if_more_follows_and_refuses_a_foreign_one() {
        let first = PageRequest {
            size: 2,
            after: None,
        };
        assert_eq!(first.limit(), 3);
        let page = first.page(vec![1, 2, 3], |n| *n, Ok).unwrap();
        assert_eq!((page.items, page.next.as_deref()), (vec![1, 2], Some("2")));
        assert_eq!(first.page(vec![1, 2], |n| *n, Ok).unwrap().next, None);

        let foreign = PageRequest {
            size: 2,
            after: Some("x' OR 1".to_owned()),
        };
        let refused = foreign.position::<i32>().unwrap_err();
        assert!(matches!(
            refused,
            StoreError::Conflict {
                code: "invalid_page_token",
                ..
            }
        ));
    }
}

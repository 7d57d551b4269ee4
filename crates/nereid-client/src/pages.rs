//! Lists, page by page.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Client, ClientError};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// Items.
    pub items: Vec<T>,
    /// Token of the next page; none at the end.
    #[serde(default)]
    pub next_page_token: Option<String>,
}

impl Client {
    /// Reads pages of a list until `limit` items are there or the list ends.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push((
                "page_size",
                limit.saturating_sub(items.len()).clamp(1, 200).to_string(),
            ));
            query.extend(token.take().map(|t| ("page_token", t)));
            let page: Listing<T> = self.get_query(segments, &query).await?;
            items.extend(page.items);
            token = page.next_page_token;
            if token.is_none() || items.len() >= limit {
                items.truncate(limit);
                return Ok(items);
            }
        }
    }
}

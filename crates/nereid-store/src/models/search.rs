//! Search for versions across the models of a project.

use std::{collections::HashMap, fmt, str::FromStr};

use nereid_core::{
    ids::ProjectId,
    models::{
        ModelVersion,
        search::{Filter, Operand, Order},
    },
};
use uuid::Uuid;

use super::versions::select_versions;
use crate::{Page, PageRequest, Store, StoreError};

/// Where a page ended: the value ordered by, and the version.
struct Position {
    key: f64,
    id: Uuid,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bits, so that it comes back as it was.
        write!(f, "{:016x}.{}", self.key.to_bits(), self.id)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let (bits, id) = s.split_once('.').ok_or(())?;
        let bits = u64::from_str_radix(bits, 16).map_err(drop)?;
        Ok(Self {
            key: f64::from_bits(bits),
            id: id.parse().map_err(drop)?,
        })
    }
}

/// Conditions by column.
#[derive(Default)]
struct Columns<'a> {
    fields: Vec<&'a str>,
    keys: Vec<&'a str>,
    comparators: Vec<&'a str>,
    numbers: Vec<Option<f64>>,
    words: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn of(filter: &'a Filter) -> Self {
        let mut columns = Self::default();
        for condition in &filter.0 {
            columns.fields.push(condition.field.as_str());
            columns.keys.push(condition.field.key());
            columns.comparators.push(condition.comparator.as_str());
            let (number, word) = match &condition.operand {
                Operand::Number(number) => (Some(*number), None),
                Operand::Text(text) => (None, Some(text.as_str())),
            };
            columns.numbers.push(number);
            columns.words.push(word);
        }
        columns
    }
}

impl Store {
    /// Lists the versions of a project's models for which a filter holds.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `invalid_page_token`.
    pub async fn search_model_versions(
        &self,
        project: ProjectId,
        filter: &Filter,
        order: &Order,
        page: &PageRequest,
    ) -> Result<Page<ModelVersion>, StoreError> {
        let columns = Columns::of(filter);
        let after = page.position::<Position>()?;
        let found = sqlx::query_file!(
            "queries/models/search.sql",
            project.0,
            &columns.fields as &[&str],
            &columns.keys as &[&str],
            &columns.comparators as &[&str],
            &columns.numbers as &[Option<f64>],
            &columns.words as &[Option<&str>],
            order.field.as_str(),
            order.field.key(),
            order.descending,
            after.as_ref().map(|p| p.key),
            after.as_ref().map(|p| p.id),
            page.limit()
        )
        .fetch_all(&self.pool)
        .await?;
        let position = |r: &_| {
            let Found { key, id } = *r;
            Position { key, id }
        };
        let found = found.into_iter().map(|r| Found {
            key: r.key,
            id: r.id,
        });
        let ids = page.page(found.collect(), position, |r| Ok(r.id))?;
        let rows = select_versions!("WHERE v.id = ANY ($1)", &ids.items)
            .fetch_all(&self.pool)
            .await?;
        let mut by_id: HashMap<_, _> = rows.into_iter().map(|r| (r.id, r)).collect();
        let versions = ids.items.iter().filter_map(|id| by_id.remove(id));
        Ok(Page {
            items: versions.map(TryInto::try_into).collect::<Result<_, _>>()?,
            next: ids.next,
        })
    }
}

/// A version that was found, and the value it is ordered by.
struct Found {
    key: f64,
    id: Uuid,
}

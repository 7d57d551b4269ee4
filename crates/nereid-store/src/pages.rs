//! Keyset pagination: a page goes on after the last key of the one before.

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

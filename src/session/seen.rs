//! What replies have shown to a socket, so that an older page is not pushed after them.

use std::{collections::HashMap, sync::Arc};

use crate::horizon::Horizon;

/// What the last default page of each topic saw. Nothing on the heap as long as there was none.
#[derive(Debug, Default)]
#[expect(clippy::box_collection)] // an empty map has 48 bytes, in each socket
pub struct Seen(Option<Box<HashMap<Arc<str>, Horizon>>>);

impl Seen {
    /// Whether no page was shown yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A page of this topic was shown that saw so much.
    pub fn insert(&mut self, topic: Arc<str>, saw: Horizon) {
        self.0.get_or_insert_default().insert(topic, saw);
    }

    /// Whether a reply was sent that saw at least as much as a page. Of a page that does not say what
    /// it saw, that is not known.
    pub fn covers(&self, topic: &Arc<str>, page: Option<&Horizon>) -> bool {
        let seen = self.0.as_ref().and_then(|seen| seen.get(topic));
        match (seen, page) {
            (Some(seen), Some(page)) => seen.covers(page),
            _ => false,
        }
    }
}

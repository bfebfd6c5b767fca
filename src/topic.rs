//! Topics: the declared kinds of data, and the tables or queries that they are views of.
//! A topic's wire `type` is spelled in the configuration and nowhere else.

mod fingerprint;
mod kind;
mod nearest;
mod notation;
mod policy;
mod schema;
mod spec;
mod table;
mod typescript;
mod view;

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

pub use kind::Kind;
pub use nearest::nearest;
pub use notation::Notation;
pub use policy::{Claims, Policy, Roles};
pub use spec::{Shown, TopicSpec};
pub use table::{Affinity, Collation, Column, Table};
pub use view::{Base, Order, View, Watch, subselect};

/// How a topic's changes reach the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Push {
    /// The changed row.
    #[default]
    Row,
    /// The whole default page after a burst of changes.
    Page,
}

impl Push {
    /// The word in the configuration and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Page => "page",
        }
    }
}

/// A declared kind of data.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// The wire `type`.
    pub name: Arc<str>,
    /// What it shows, of a table or of a query's result; none for application events only.
    pub view: Option<View>,
    /// How changes are pushed.
    pub push: Push,
}

/// Why a topic cannot be what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadTopic {
    /// The configuration key within the topic, such as `order_by`.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub reason: String,
}

/// All topics of a gateway, by name.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    list: Arc<[Arc<Topic>]>,
    by_name: Arc<HashMap<Arc<str>, usize>>,
}

// === impl Topic ===

/// Whether a text may be a topic's wire `type`: `^[A-Za-z0-9_-]{1,64}$`.
pub fn is_topic_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Topic {
    /// Holds a specification against the table that it names.
    ///
    /// `table` is what the database says of `spec.table`, and `None` when the topic has no table.
    ///
    /// # Errors
    /// [`BadTopic`] names the configuration key, what is wrong and what is allowed. The
    /// condition is only carried, not parsed: see [`crate::predicate`].
    pub fn resolve(spec: &TopicSpec, table: Option<&Table>) -> Result<Self, BadTopic> {
        let view = table.map(|table| View::of_table(spec, table));
        Self::with(spec, view.transpose()?)
    }

    /// Holds a specification with a query against what the database says of the query's `result`
    /// and of the tables that it `watch`es, in the order of `spec.watch`.
    ///
    /// The key is unique by the word of whoever wrote it: nothing can tell that of a query.
    ///
    /// # Errors
    /// As [`Topic::resolve`].
    pub fn resolve_query(
        spec: &TopicSpec,
        result: &Table,
        watched: &[Table],
    ) -> Result<Self, BadTopic> {
        let view = View::of_query(spec, result, watched)?;
        Self::with(spec, Some(view))
    }

    fn with(spec: &TopicSpec, view: Option<View>) -> Result<Self, BadTopic> {
        let bad = |field, reason: String| Err(BadTopic { field, reason });
        if !is_topic_name(&spec.r#type) {
            return bad("type", "1 to 64 of A-Z a-z 0-9 _ - are allowed".into());
        }
        if let (None, Some(field)) = (&view, spec.needs_table()) {
            return bad(field, "needs a table; name one with `table`".into());
        }
        Ok(Self {
            name: spec.r#type.as_str().into(),
            push: spec.push(),
            view,
        })
    }

    /// The same topic without a policy and roles: for who may see everything.
    pub fn unguarded(&self) -> Self {
        let mut topic = self.clone();
        if let Some(view) = &mut topic.view {
            (view.policy, view.roles) = (None, None);
        }
        topic
    }

    /// Whether what of it somebody sees depends on who he is.
    pub fn is_guarded(&self) -> bool {
        let guarded = |view: &View| view.policy.is_some() || view.roles.is_some();
        self.view.as_ref().is_some_and(guarded)
    }
}

// === impl Topics ===

impl Topics {
    /// Gathers topics in the order of the configuration.
    ///
    /// # Errors
    /// [`BadTopic`] where two share a name.
    pub fn new(topics: Vec<Topic>) -> Result<Self, BadTopic> {
        let mut by_name = HashMap::new();
        for (index, topic) in topics.iter().enumerate() {
            if by_name.insert(topic.name.clone(), index).is_some() {
                return Err(BadTopic {
                    field: "type",
                    reason: format!("\"{}\" is declared twice", topic.name),
                });
            }
        }
        Ok(Self {
            list: topics.into_iter().map(Arc::new).collect(),
            by_name: Arc::new(by_name),
        })
    }

    /// The topic of that wire `type`.
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name).map(|&index| &self.list[index])
    }

    /// The topics as somebody sees them, without those that he does not.
    pub fn seen(&self, see: impl Fn(&Topic) -> Option<Topic>) -> Self {
        let seen: Vec<Arc<Topic>> = self
            .list
            .iter()
            .filter_map(|topic| see(topic))
            .map(Arc::new)
            .collect();
        let names = seen.iter().map(|topic| topic.name.clone());
        Self {
            by_name: Arc::new(names.zip(0..).collect()),
            list: seen.into(),
        }
    }

    /// All topics, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests;

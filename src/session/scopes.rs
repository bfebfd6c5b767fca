//! What whom may see of guarded topics' events: his policy compiled for the table as it is, and the columns of
//! his roles. It stands before whatever a client asks for, and is compiled once for all sockets of whom it is
//! the same.

use std::sync::Arc;

use super::{
    Gateway,
    filters::{Filter, Filters},
};
use crate::{
    identity::Identity,
    policy,
    predicate::{Predicate, Unbound},
    row::Value,
    topic::{Claims, Table, Topic, Topics},
};

/// What somebody may see of a guarded topic.
#[derive(Debug)]
pub struct Scope {
    /// The topic as he sees it.
    pub topic: Arc<Topic>,
    /// Which rows.
    rows: Allowed,
    /// These columns only, where not all.
    pub columns: Option<Arc<[String]>>,
}

/// Which rows somebody may see.
#[derive(Debug)]
enum Allowed {
    /// All of them.
    All,
    /// Those for which this holds.
    Where(Predicate, Arc<Table>),
    /// None: the policy does not fit the table any more.
    None,
    /// None yet, for the table is not described as it is now.
    Unknown,
}

/// Of every guarded topic what somebody may see; none of one that does not exist for him.
pub type Scopes = Box<[(Arc<str>, Option<Arc<Scope>>)]>;

/// By what scopes of one topic differ.
pub type ScopeKey = (Vec<String>, Option<Claims>);

/// How a lane finds out whether a change of a row concerns a socket.
#[derive(Debug, PartialEq)]
pub enum Stake {
    /// It never does.
    None,
    /// Where the row has one of these values in this column, before or after.
    Pinned(Arc<Table>, Box<str>, Vec<Value>),
    /// The socket must be asked.
    Any,
}

impl Scope {
    /// What may be seen of a topic, which is as somebody sees it; `table` describes it where rows are judged. As
    /// long as there is none, [`Self::is_unknown`].
    pub fn of(topic: &Arc<Topic>, table: Option<Arc<Table>>) -> Self {
        let view = topic.view.as_ref();
        let policy = view.and_then(|view| view.policy.as_ref());
        let rows = match (policy, table) {
            (Some(policy), Some(table)) => match Unbound::parse(policy.text(), &table) {
                Ok(unbound) => Allowed::Where(unbound.bind(policy.claims()), table),
                Err(err) => {
                    tracing::error!(topic = %topic.name, error = %err, "the topic's policy does not fit its table any more: nobody sees a row");
                    Allowed::None
                }
            },
            (Some(_), None) => Allowed::Unknown,
            (None, _) => Allowed::All,
        };
        let columns = view.map(|view| &view.columns[..]).unwrap_or_default();
        Self {
            topic: topic.clone(),
            rows,
            columns: (!columns.is_empty()).then(|| columns.into()),
        }
    }

    /// Whether no row may be seen, or none yet.
    pub fn is_shut(&self) -> bool {
        matches!(self.rows, Allowed::None | Allowed::Unknown)
    }

    /// Whether it is to be found out yet which rows may be seen.
    pub fn is_unknown(&self) -> bool {
        matches!(self.rows, Allowed::Unknown)
    }

    /// Whether a filter names only what may be seen.
    pub fn admits(&self, filter: &Filter) -> bool {
        let view = self.topic.view.as_ref();
        let mut columns = filter.conditions.iter().map(|condition| &condition.column);
        columns.all(|column| view.is_some_and(|view| view.shows(column)))
    }

    /// By what rows are judged, if by anything.
    pub fn policy(&self) -> Option<(&Predicate, &Arc<Table>)> {
        match &self.rows {
            Allowed::Where(predicate, table) => Some((predicate, table)),
            Allowed::All | Allowed::None | Allowed::Unknown => None,
        }
    }

    /// What a lane looks at.
    pub fn stake(&self) -> Stake {
        let (predicate, table) = match &self.rows {
            Allowed::Where(predicate, table) => (predicate, table),
            Allowed::None => return Stake::None,
            Allowed::All | Allowed::Unknown => return Stake::Any,
        };
        match predicate.pinned() {
            Some((column, values)) => {
                let values = values.into_iter().cloned().collect();
                Stake::Pinned(table.clone(), column.into(), values)
            }
            None => Stake::Any,
        }
    }
}

impl Filters {
    /// Compiles what may be seen of a topic, which is as somebody sees it, for its table as it is now. Nothing is
    /// asked: see [`Scope::is_unknown`].
    pub fn scope(&self, topic: &Arc<Topic>) -> Arc<Scope> {
        let view = topic.view.as_ref();
        let columns = view.map(|view| view.columns.clone()).unwrap_or_default();
        let policy = view.and_then(|view| view.policy.as_ref());
        let key = (columns, policy.map(|policy| policy.claims().clone()));
        let table = policy.and_then(|_| self.known_table(topic));
        if let Some(known) = self.known_scope(&topic.name, &key, table.as_ref()) {
            return known;
        }
        let scope = Arc::new(Scope::of(topic, table));
        self.remember_scope(&topic.name, key, &scope);
        scope
    }
}

impl Gateway {
    /// The topic of that name as somebody sees it; `None` where it does not exist for him.
    pub fn topic(&self, name: &str, identity: &Identity) -> Option<Arc<Topic>> {
        let topic = self.topics.get(name)?;
        match topic.is_guarded() {
            true => policy::seen_by(topic, identity).map(Arc::new),
            false => Some(topic.clone()),
        }
    }

    /// All topics as somebody sees them.
    pub fn topics_of(&self, identity: &Identity) -> Topics {
        self.topics.seen(|topic| policy::seen_by(topic, identity))
    }

    /// Of every guarded topic what somebody may see of its events.
    pub(super) fn scopes(&self, identity: &Identity) -> Scopes {
        let guarded = self.topics.iter().filter(|topic| topic.is_guarded());
        let scopes = guarded.map(|topic| {
            let seen = self.topic(&topic.name, identity);
            let scope = seen.map(|seen| self.filters.scope(&seen));
            (topic.name.clone(), scope)
        });
        scopes.collect()
    }
}

//! The tables of the stream: what a relation's number stands for, and how its rows become images.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::pgoutput::{Cell, Old, Relation, Tuple};
use crate::{
    postgres,
    row::{Names, Row, Value},
    topic::{Base, Kind, Table, Topics},
};

/// The watched tables, and the columns of each without which a topic cannot be followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched(BTreeMap<String, Needs>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Needs {
    columns: BTreeSet<String>,
    conditional: bool,
}

/// What a session knows of the stream's tables.
#[derive(Debug)]
pub struct Relations {
    watched: Watched,
    /// By the table's name, so that another shape of it is noticed across sessions.
    shapes: HashMap<String, Arc<Table>>,
    /// By OID; none for a table that nobody watches.
    known: HashMap<u32, Option<Followed>>,
}

/// A watched table as it is at this point of the stream.
#[derive(Debug)]
pub struct Followed {
    /// `schema.table`.
    pub name: Arc<str>,
    /// Its description.
    pub shape: Arc<Table>,
    /// A column that a topic needs has gone: its next change is told as a reload.
    pub reload: bool,
    names: Names,
    kinds: Vec<Kind>,
    /// The columns of the replica identity.
    key: Vec<usize>,
    key_names: Names,
}

// === impl Watched ===

impl Watched {
    /// The tables of the topics, with the columns that they name; of those watched for a query's
    /// sake, the key.
    ///
    /// A condition's columns are not among them: where one has gone, the condition fits its table
    /// no longer, and who judges it tells so.
    pub fn of(topics: &Topics) -> Self {
        let mut watched = BTreeMap::<String, Needs>::new();
        for view in topics.iter().filter_map(|topic| topic.view.as_ref()) {
            let table = match &view.base {
                Base::Table(table) => table,
                Base::Query { watch, .. } => {
                    for table in watch {
                        let needs = watched.entry(table.table.clone()).or_default();
                        needs.columns.extend(table.key.iter().cloned());
                    }
                    continue;
                }
            };
            let needs = watched.entry(table.clone()).or_default();
            needs.columns.extend(view.key.iter().cloned());
            needs.columns.extend(view.columns.iter().cloned());
            let order = view.order.iter().map(|order| order.column.clone());
            needs.columns.extend(order);
            needs.conditional |= view.condition.is_some();
        }
        Self(watched)
    }

    /// Whether a topic shows only some rows of a table, by a condition.
    pub fn is_conditional(&self, table: &str) -> bool {
        self.0.get(table).is_some_and(|needs| needs.conditional)
    }

    /// The tables as `schema.table`, each once, in order.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a table is watched.
    pub fn contains(&self, table: &str) -> bool {
        self.0.contains_key(table)
    }
}

// === impl Relations ===

impl Relations {
    /// Knows nothing of the stream yet; `shapes` are the tables as they were last known.
    pub fn new(watched: Watched, shapes: impl IntoIterator<Item = Arc<Table>>) -> Self {
        let shapes = shapes.into_iter().map(|shape| (shape.name.clone(), shape));
        Self {
            watched,
            shapes: shapes.collect(),
            known: HashMap::new(),
        }
    }

    /// The name under which a relation of the stream is watched, if it is.
    pub fn watches(&self, relation: &Relation) -> Option<String> {
        let name = name(relation);
        self.watched.contains(&name).then_some(name)
    }

    /// Forgets what the number stood for: nobody watches that table.
    pub fn ignore(&mut self, oid: u32) {
        self.known.insert(oid, None);
    }

    /// Takes note of a watched table as the stream describes it; `kinds` are its columns' types.
    pub fn learn(&mut self, relation: &Relation, shape: Table, kinds: Vec<Kind>) {
        let name = name(relation);
        let before = self.shapes.get(&name);
        let needed = self.watched.0.get(&name);
        let gone = |column: &String| {
            shape.column(column).is_none()
                && before.is_some_and(|before| before.column(column).is_some())
        };
        let reload = needed.is_some_and(|needed| needed.columns.iter().any(gone));
        // One table keeps one shape while it stays the same, so that conditions stay compiled.
        let shape = match before {
            Some(before) if **before == shape => before.clone(),
            _ => Arc::new(shape),
        };
        if reload {
            tracing::warn!(table = name, "a column that a topic needs has gone");
        }
        self.shapes.insert(name.clone(), shape.clone());
        let names: Names = relation
            .columns
            .iter()
            .map(|c| c.name.as_str().into())
            .collect();
        let columns = relation.columns.iter().enumerate();
        let key: Vec<usize> = columns
            .filter(|(_, column)| column.identity)
            .map(|(index, _)| index)
            .collect();
        let key_names = key.iter().map(|index| names[*index].clone()).collect();
        self.known.insert(
            relation.oid,
            Some(Followed {
                name: name.into(),
                shape,
                reload,
                names,
                kinds,
                key,
                key_names,
            }),
        );
    }

    /// The watched table of that number: none for another, an error for one never described.
    pub fn get(&mut self, oid: u32) -> Result<Option<&mut Followed>, Undescribed> {
        match self.known.get_mut(&oid) {
            Some(followed) => Ok(followed.as_mut()),
            None => Err(Undescribed(oid)),
        }
    }
}

/// A change names a relation that the stream has not described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change of relation {0}, which the stream has not described")]
pub struct Undescribed(pub u32);

/// `schema.table`, as the stream describes it.
fn name(relation: &Relation) -> String {
    let schema = match relation.schema.as_str() {
        "" => "pg_catalog",
        schema => schema,
    };
    format!("{schema}.{}", relation.name)
}

// === impl Followed ===

impl Followed {
    /// The row after. A value that was not sent, for it has not changed, is taken from the whole
    /// row before, or is absent.
    pub fn after(&self, tuple: &Tuple, old: Option<&Old>) -> Row {
        let whole = old.filter(|old| !old.key_only).map(|old| &old.tuple);
        let mut values = Vec::with_capacity(self.names.len());
        let mut absent = Vec::new();
        for index in 0..self.names.len() {
            let before = whole.and_then(|whole| self.value(whole, index));
            match self.value(tuple, index).or(before) {
                Some(value) => values.push(value),
                None => absent.push(index),
            }
        }
        match absent.is_empty() {
            true => Row::new(self.names.clone(), values),
            false => Row::new(self.without(&absent), values),
        }
    }

    /// The row before, as far as it is told.
    pub fn before(&self, old: &Old) -> Row {
        if !old.key_only {
            return self.after(&old.tuple, None);
        }
        let values = self.key.iter().map(|index| {
            let value = self.value(&old.tuple, *index);
            value.unwrap_or(Value::Null)
        });
        Row::new(self.key_names.clone(), values.collect())
    }

    fn without(&self, absent: &[usize]) -> Names {
        let names = self.names.iter().enumerate();
        names
            .filter(|(index, _)| !absent.contains(index))
            .map(|(_, name)| name.clone())
            .collect()
    }

    fn value(&self, tuple: &Tuple, index: usize) -> Option<Value> {
        match tuple.get(index)? {
            Cell::Null => Some(Value::Null),
            Cell::Unchanged => None,
            Cell::Text(text) => Some(match self.kinds.get(index) {
                Some(kind) => postgres::value(kind, &text),
                None => Value::Text(text.into_owned()),
            }),
        }
    }
}

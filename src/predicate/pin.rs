//! What a condition pins a column to, so that who must be told of a row is looked up and not searched for.

use super::{Condition, Op, Operand, Predicate};
use crate::{row::Value, topic::Kind};

impl Predicate {
    /// A column, and the values of which it must have one in every row for which the condition holds; none
    /// of them where it holds for no row. `None` where nothing of that kind follows from it.
    ///
    /// Only of kinds whose equal values are the same [`Value`].
    pub fn pinned(&self) -> Option<(&str, Vec<&Value>)> {
        let parts = match &self.condition {
            Condition::All(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let pinned = parts.iter().find_map(|part| match part {
            Condition::Literal {
                column,
                op: Op::Eq,
                value,
            } => Some((column, std::slice::from_ref(value))),
            Condition::In {
                column,
                negated: false,
                values,
            } => Some((column, values.as_slice())),
            _ => None,
        });
        let (column, values) = pinned.filter(|(column, _)| is_plain(column))?;
        // Nothing is equal to NULL.
        let values = values.iter().filter(|value| **value != Value::Null);
        Some((&column.name, values.collect()))
    }
}

fn is_plain(column: &Operand) -> bool {
    matches!(
        column.kind,
        Some(
            Kind::Boolean | Kind::Integer | Kind::Oid | Kind::Text | Kind::Uuid | Kind::Enum { .. }
        )
    )
}

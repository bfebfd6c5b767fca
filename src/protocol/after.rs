//! `page.next`: a place in a sorted list, carried by the client and opaque to it.

use serde_json::{Value as Json, json};

use super::{
    Condition, ErrorCode, Failure, Params, Test,
    params::{MAX_CONDITIONS, MAX_IN_LIST, MAX_ORDER, MAX_PATTERN, scalar},
};
use crate::{
    row::{self, Value},
    topic::Order,
};

/// The parts of a token that a client has chosen: topic, size, order and filter.
const CHOSEN: usize = 4;

/// A place in a sorted list, as `page.next` carries it: opaque to clients.
#[derive(Debug, Clone, PartialEq)]
pub struct After {
    /// The topic that it belongs to.
    pub topic: String,
    /// The order and filter that it continues, and the size.
    pub params: Params,
    /// The last row's values of the order's columns and the key.
    pub last: Vec<Value>,
}

impl After {
    /// The token that a client gets as `page.next`.
    pub fn token(&self) -> String {
        let order: Vec<Json> = self
            .params
            .order
            .iter()
            .map(|by| json!([by.column, by.descending]))
            .collect();
        let filter: Vec<Json> = self.params.filter.iter().map(write_condition).collect();
        let last: Vec<Json> = self.last.iter().map(write_exact).collect();
        let text = json!([self.topic, self.params.size, order, filter, last]).to_string();
        row::hex(text.as_bytes())[2..].to_owned()
    }

    /// Reads a token, which a client may have made up itself: what holds for a request's parameters
    /// holds for its own. Its values are only ever bound, and its columns checked, by the Store.
    pub(super) fn read(token: &str) -> Result<Self, Failure> {
        let wrong = || Failure::param("params.after: a page.next of this topic");
        let bytes = row::unhex(&format!("\\x{token}")).ok_or_else(wrong)?;
        let parts: Json = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        // What a row holds it may hold; what a client has chosen not.
        let chosen = parts.as_array().map_or(&[][..], Vec::as_slice);
        if chosen.iter().take(CHOSEN).any(holds_nul) {
            return Err(ErrorCode::NulNotAllowed.into());
        }
        read_token(&parts).ok_or_else(wrong)
    }

    /// Takes parameters given beside the token only if they are those of the token.
    pub(super) fn with(self, given: Params) -> Result<Self, Failure> {
        let same = given.page.is_none()
            && (given.size.is_none() || given.size == self.params.size)
            && (given.order.is_empty() || self.params.order.starts_with(&given.order))
            && (given.filter.is_empty() || given.filter == self.params.filter);
        match same {
            true => Ok(self),
            false => Err(Failure::param(
                "params.after: carries size, order and filter itself",
            )),
        }
    }
}

fn holds_nul(json: &Json) -> bool {
    match json {
        Json::String(text) => text.contains('\0'),
        Json::Array(list) => list.iter().any(holds_nul),
        Json::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

fn read_token(parts: &Json) -> Option<After> {
    let [topic, size, order, filter, last] = parts.as_array()?.as_slice() else {
        return None;
    };
    let at_most = |list: &'_ Json, most: usize| list.as_array().is_some_and(|l| l.len() <= most);
    // The key was appended to the order.
    if !at_most(order, 2 * MAX_ORDER) || !at_most(filter, MAX_CONDITIONS) {
        return None;
    }
    let order = order.as_array()?.iter().map(|by| {
        Some(Order {
            column: by.get(0)?.as_str()?.to_owned(),
            descending: by.get(1)?.as_bool()?,
        })
    });
    let size = size
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n >= 1)?;
    Some(After {
        topic: topic.as_str()?.to_owned(),
        params: Params {
            page: None,
            size: Some(size),
            order: order.collect::<Option<_>>()?,
            filter: filter
                .as_array()?
                .iter()
                .map(read_condition)
                .collect::<Option<_>>()?,
        },
        last: last
            .as_array()?
            .iter()
            .map(read_exact)
            .collect::<Option<_>>()?,
    })
}

fn write_condition(condition: &Condition) -> Json {
    let (name, value) = match &condition.test {
        Test::Eq(value) => ("eq", write_exact(value)),
        Test::Ne(value) => ("ne", write_exact(value)),
        Test::Lt(value) => ("lt", write_exact(value)),
        Test::Lte(value) => ("lte", write_exact(value)),
        Test::Gt(value) => ("gt", write_exact(value)),
        Test::Gte(value) => ("gte", write_exact(value)),
        Test::Like(pattern) => ("like", pattern.as_str().into()),
        Test::In(list) => ("in", list.iter().map(write_exact).collect()),
    };
    json!([condition.column, name, value])
}

fn read_condition(parts: &Json) -> Option<Condition> {
    let value = parts.get(2)?;
    let test = match parts.get(1)?.as_str()? {
        "eq" => Test::Eq(read_exact(value)?),
        "ne" => Test::Ne(read_exact(value)?),
        "lt" => Test::Lt(read_exact(value)?),
        "lte" => Test::Lte(read_exact(value)?),
        "gt" => Test::Gt(read_exact(value)?),
        "gte" => Test::Gte(read_exact(value)?),
        "like" => {
            let pattern = value.as_str()?;
            (pattern.chars().count() <= MAX_PATTERN).then(|| Test::Like(pattern.to_owned()))?
        }
        "in" => Test::In(
            value
                .as_array()
                .filter(|list| list.len() <= MAX_IN_LIST)?
                .iter()
                .map(read_exact)
                .collect::<Option<_>>()?,
        ),
        _ => return None,
    };
    Some(Condition {
        column: parts.get(0)?.as_str()?.to_owned(),
        test,
    })
}

/// A value so that reading it back yields the same bits; reals and bytes are one-member objects.
fn write_exact(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => (*integer).into(),
        Value::Real(real) => json!({ "r": real.to_bits() }),
        Value::Text(text) => text.as_str().into(),
        Value::Blob(bytes) => json!({ "x": row::hex(bytes) }),
        Value::Boolean(truth) => (*truth).into(),
        Value::Json(text) => json!({ "j": text }),
    }
}

fn read_exact(value: &Json) -> Option<Value> {
    match value {
        Json::Object(members) => match members.get("x") {
            Some(bytes) => row::unhex(bytes.as_str()?).map(Value::Blob),
            None if members.contains_key("j") => {
                Some(Value::Json(members.get("j")?.as_str()?.into()))
            }
            None => Some(Value::Real(f64::from_bits(members.get("r")?.as_u64()?))),
        },
        other => scalar(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Select;

    fn select(text: &str) -> Result<Select, Failure> {
        Select::read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_token_carries_everything_exactly() {
        let after = After {
            topic: "patient".into(),
            params: Params {
                page: None,
                size: Some(20),
                order: vec![Order {
                    column: "name".into(),
                    descending: true,
                }],
                filter: vec![Condition {
                    column: "age".into(),
                    test: Test::In(vec![Value::Null, Value::Real(0.1)]),
                }],
            },
            last: vec![
                Value::Integer(i64::MIN),
                Value::Real(f64::MIN_POSITIVE),
                Value::Text("王".into()),
                Value::Blob(vec![0, 255]),
                Value::Null,
            ],
        };
        let text = json!({ "after": after.token() }).to_string();
        assert_eq!(select(&text), Ok(Select::After(after)));
    }
}

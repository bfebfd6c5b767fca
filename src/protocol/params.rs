//! What a direct query asks for: one row, a page, the next page, or the whole view.
//! Columns are names here; the Store holds them against the table.

use serde_json::{Map, Value as Json};

use super::{After, ErrorCode, Failure, json::MAX_EXACT};
use crate::{row::Value, topic::Order};

/// The most values in one IN list of a filter.
pub const MAX_IN_LIST: usize = 256;

/// The most characters of a LIKE pattern.
///
/// The database compares it with every place in a text, and cannot be interrupted within one row:
/// 256 against a text of a megabyte is a fraction of a second, 60,000 would be a minute.
pub(super) const MAX_PATTERN: usize = 256;

/// The most conditions of one filter.
pub(super) const MAX_CONDITIONS: usize = 64;

/// The most columns of one order.
pub(super) const MAX_ORDER: usize = 16;

/// What a direct query selects.
#[derive(Debug, Clone, PartialEq)]
pub enum Select {
    /// The row of this key, or none.
    Id(Key),
    /// One page.
    Page(Params),
    /// The page after the row that a reply's `page.next` named.
    After(After),
    /// The whole view, at one position.
    All(Params),
}

/// A row's key as a request gives it.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// For a topic with one key column.
    One(Value),
    /// By column name, for any topic.
    Named(Vec<(String, Value)>),
}

/// Filter, order and place of a page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Params {
    /// The page's number, from 1.
    pub page: Option<u32>,
    /// Rows of the page.
    pub size: Option<u32>,
    /// The order; the topic's own where empty. The key is appended by the Store.
    pub order: Vec<Order>,
    /// Conditions, all of which must hold.
    pub filter: Vec<Condition>,
}

/// A column and what it must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The column.
    pub column: String,
    /// The test.
    pub test: Test,
}

/// One test of a filter, with SQL's meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `=`; IS NULL for null.
    Eq(Value),
    /// `<>`; IS NOT NULL for null.
    Ne(Value),
    /// `<`
    Lt(Value),
    /// `<=`
    Lte(Value),
    /// `>`
    Gt(Value),
    /// `>=`
    Gte(Value),
    /// LIKE, with the database's own case rule.
    Like(String),
    /// IN; a null in the list stands for IS NULL.
    In(Vec<Value>),
}

// === impl Select ===

impl Select {
    /// Reads a request's `params`.
    ///
    /// # Errors
    /// [`super::ErrorCode::BadParam`] with the parameter's name and what is allowed.
    pub fn read(params: &Map<String, Json>) -> Result<Self, Failure> {
        let all = match params.get("all") {
            None | Some(Json::Null | Json::Bool(false)) => false,
            Some(Json::Bool(true)) => true,
            Some(_) => return Err(Failure::param("params.all: true or false")),
        };
        let given = Params::read(params)?;
        match params.get("after") {
            None | Some(Json::Null) if !all => Ok(Self::Page(given)),
            None | Some(Json::Null) if given.page.is_some() || given.size.is_some() => {
                Err(Failure::param("params.all: not together with page or size"))
            }
            None | Some(Json::Null) => Ok(Self::All(given)),
            Some(_) if all => Err(Failure::param("params.all: not together with after")),
            Some(Json::String(token)) => Ok(Self::After(After::read(token)?.with(given)?)),
            Some(_) => Err(Failure::param("params.after: a page.next")),
        }
    }

    /// Reads a request's `id`: a number or string, or an object for a composite key.
    ///
    /// # Errors
    /// [`super::ErrorCode::BadParam`] for anything else, and [`super::ErrorCode::NumberRange`] for a
    /// number that is none of a key's any more.
    pub fn read_id(id: &Json) -> Result<Self, Failure> {
        let key = match id {
            Json::Object(members) if !members.is_empty() => Key::Named(
                members
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), key_value(value)?)))
                    .collect::<Result<_, Failure>>()?,
            ),
            other => Key::One(key_value(other)?),
        };
        Ok(Self::Id(key))
    }
}

fn key_value(value: &Json) -> Result<Value, Failure> {
    let key = match value {
        Json::Number(_) | Json::String(_) => scalar(value),
        _ => None,
    };
    match key {
        // An integer so large was rounded before it came here, and would find another row.
        Some(Value::Real(real)) if real.abs() > MAX_EXACT as f64 => {
            Err(ErrorCode::NumberRange.into())
        }
        Some(key) => Ok(key),
        None => Err(Failure::param(
            "id: a number or string, or an object of the key columns",
        )),
    }
}

/// A JSON scalar as the database's value; `None` for arrays and objects.
pub(super) fn scalar(value: &Json) -> Option<Value> {
    Some(match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Integer(i64::from(*flag)),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64()?),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(_) | Json::Object(_) => return None,
    })
}

// === impl Params ===

impl Params {
    fn read(params: &Map<String, Json>) -> Result<Self, Failure> {
        Ok(Self {
            page: count(params.get("page"), "params.page: an integer from 1")?,
            size: count(params.get("size"), "params.size: an integer from 1")?,
            order: read_order(params.get("order"))?,
            filter: read_filter(params.get("filter"))?,
        })
    }
}

fn count(value: Option<&Json>, wrong: &'static str) -> Result<Option<u32>, Failure> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().filter(|n| *n >= 1);
            let number = number.and_then(|n| u32::try_from(n).ok());
            number.map(Some).ok_or_else(|| Failure::param(wrong))
        }
    }
}

fn read_order(order: Option<&Json>) -> Result<Vec<Order>, Failure> {
    let wrong = || Failure::param("params.order: \"column\", \"column desc\" or an array of them");
    let one = |text: &Json| text.as_str().and_then(Order::parse).ok_or_else(wrong);
    match order {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(list)) if list.len() <= MAX_ORDER => list.iter().map(one).collect(),
        Some(text) => Ok(vec![one(text)?]),
    }
}

pub(super) fn read_filter(filter: Option<&Json>) -> Result<Vec<Condition>, Failure> {
    let members = match filter {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Object(members)) if members.len() <= MAX_CONDITIONS => members,
        Some(_) => {
            return Err(Failure::param(
                "params.filter: an object of at most 64 columns",
            ));
        }
    };
    let mut conditions = Vec::new();
    for (column, wanted) in members {
        for test in tests(wanted)? {
            conditions.push(Condition {
                column: column.clone(),
                test,
            });
        }
    }
    match conditions.len() <= MAX_CONDITIONS {
        true => Ok(conditions),
        false => Err(Failure::param("params.filter: at most 64 conditions")),
    }
}

fn tests(wanted: &Json) -> Result<Vec<Test>, Failure> {
    match wanted {
        Json::Array(list) => Ok(vec![Test::In(in_list(list)?)]),
        Json::Object(members) => members
            .iter()
            .map(|(name, value)| test(name, value))
            .collect(),
        value => Ok(vec![Test::Eq(operand(value)?)]),
    }
}

fn test(name: &str, value: &Json) -> Result<Test, Failure> {
    let ordered = |make: fn(Value) -> Test| match operand(value)? {
        Value::Null => Err(Failure::param(
            "params.filter: null goes with eq and ne only",
        )),
        value => Ok(make(value)),
    };
    match name {
        "eq" => match value {
            Json::Array(list) => Ok(Test::In(in_list(list)?)),
            value => Ok(Test::Eq(operand(value)?)),
        },
        "ne" => Ok(Test::Ne(operand(value)?)),
        "lt" => ordered(Test::Lt),
        "lte" => ordered(Test::Lte),
        "gt" => ordered(Test::Gt),
        "gte" => ordered(Test::Gte),
        "like" => match value {
            Json::String(pattern) if pattern.chars().count() <= MAX_PATTERN => {
                Ok(Test::Like(pattern.clone()))
            }
            _ => Err(Failure::param(
                "params.filter: like takes a string of at most 256 characters",
            )),
        },
        _ => Err(Failure::param(
            "params.filter: eq, ne, lt, lte, gt, gte or like",
        )),
    }
}

fn operand(value: &Json) -> Result<Value, Failure> {
    scalar(value).ok_or_else(|| Failure::param("params.filter: a string, number, boolean or null"))
}

fn in_list(list: &[Json]) -> Result<Vec<Value>, Failure> {
    if list.len() > MAX_IN_LIST {
        return Err(Failure::param(
            "params.filter: at most 256 values in a list",
        ));
    }
    list.iter().map(operand).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorCode;

    fn select(text: &str) -> Result<Select, Failure> {
        let Json::Object(params) = serde_json::from_str(text).unwrap() else {
            panic!("an object")
        };
        Select::read(&params)
    }

    #[test]
    fn parameters_that_contradict_each_other_are_refused() {
        for text in [
            r#"{"all":true,"page":1}"#,
            r#"{"all":true,"after":"00"}"#,
            r#"{"page":0}"#,
            r#"{"size":-1}"#,
            r#"{"order":5}"#,
            r#"{"filter":{"a":{"near":1}}}"#,
            r#"{"filter":{"a":{"lt":null}}}"#,
            r#"{"after":"zz"}"#,
        ] {
            assert_eq!(
                select(text).unwrap_err().code,
                ErrorCode::BadParam,
                "{text}"
            );
        }
    }
}

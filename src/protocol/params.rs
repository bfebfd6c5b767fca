//! What a direct query asks for: one row, a page, the next page, or the whole view.
//! Columns are names here; the Store holds them against the table.

use serde_json::{Map, Value as Json, json};

use super::Failure;
use crate::{
    row::{self, Value},
    topic::Order,
};

/// The most values in one IN list of a filter.
pub const MAX_IN_LIST: usize = 256;

/// The most characters of a LIKE pattern.
///
/// The database compares it with every place in a text, and cannot be interrupted within one row:
/// 256 against a text of a megabyte is a fraction of a second, 60,000 would be a minute.
const MAX_PATTERN: usize = 256;

/// The most conditions of one filter.
const MAX_CONDITIONS: usize = 64;

/// The most columns of one order.
const MAX_ORDER: usize = 16;

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
    /// [`super::ErrorCode::BadParam`] for anything else.
    pub fn read_id(id: &Json) -> Result<Self, Failure> {
        let wrong = || Failure::param("id: a number or string, or an object of the key columns");
        let key = match id {
            Json::Object(members) if !members.is_empty() => Key::Named(
                members
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), key_value(value).ok_or_else(wrong)?)))
                    .collect::<Result<_, Failure>>()?,
            ),
            other => Key::One(key_value(other).ok_or_else(wrong)?),
        };
        Ok(Self::Id(key))
    }
}

fn key_value(value: &Json) -> Option<Value> {
    match value {
        Json::Number(_) | Json::String(_) => scalar(value),
        _ => None,
    }
}

/// A JSON scalar as the database's value; `None` for arrays and objects.
fn scalar(value: &Json) -> Option<Value> {
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

fn read_filter(filter: Option<&Json>) -> Result<Vec<Condition>, Failure> {
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
    Ok(conditions)
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

// === impl After ===

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

    /// Reads a token. Its values are only ever bound, and its columns checked, by the Store.
    fn read(token: &str) -> Result<Self, Failure> {
        let wrong = || Failure::param("params.after: a page.next of this topic");
        let bytes = row::unhex(&format!("\\x{token}")).ok_or_else(wrong)?;
        let parts: Json = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        read_token(&parts).ok_or_else(wrong)
    }

    /// Takes parameters given beside the token only if they are those of the token.
    fn with(self, given: Params) -> Result<Self, Failure> {
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

fn read_token(parts: &Json) -> Option<After> {
    let [topic, size, order, filter, last] = parts.as_array()?.as_slice() else {
        return None;
    };
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
        "like" => Test::Like(
            value
                .as_str()
                .filter(|pattern| pattern.chars().count() <= MAX_PATTERN)?
                .to_owned(),
        ),
        "in" => Test::In(
            value
                .as_array()?
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
    }
}

fn read_exact(value: &Json) -> Option<Value> {
    match value {
        Json::Object(members) => match members.get("x") {
            Some(bytes) => row::unhex(bytes.as_str()?).map(Value::Blob),
            None => Some(Value::Real(f64::from_bits(members.get("r")?.as_u64()?))),
        },
        other => scalar(other),
    }
}

/// Reads the parameters of `GET /api/query/{type}` as a request's `id` and `params`.
///
/// Values of filters that are spelled like a JSON number, true, false or null are those; others
/// are text. A repeated `filter[col]` makes an IN list.
///
/// # Errors
/// [`super::ErrorCode::BadParam`] with the parameter's name.
pub fn query_string(query: &str) -> Result<Select, Failure> {
    let (mut params, mut key, mut id) = (Map::new(), Map::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let text = || Json::String(value.to_string());
        match split_name(&name) {
            ("id", None, None) => id = Some(text()),
            ("page" | "size", None, None) => {
                let number = value
                    .parse::<u32>()
                    .map_err(|_| Failure::param("page, size: integers from 1"))?;
                params.insert(name.to_string(), number.into());
            }
            ("after", None, None) => drop(params.insert("after".into(), text())),
            ("all", None, None) => {
                let flag = matches!(&*value, "" | "1" | "true");
                params.insert("all".into(), flag.into());
            }
            ("order", None, None) => {
                let list: Vec<Json> = value.split(',').map(|by| by.trim().into()).collect();
                params.insert("order".into(), list.into());
            }
            ("key", Some(column), None) => drop(key.insert(column.into(), text())),
            ("filter", Some(column), test) => add_filter(&mut params, column, test, &value),
            // As on the socket, what is not known is ignored.
            _ => {}
        }
    }
    match (id, key.is_empty()) {
        (None, true) => Select::read(&params),
        (Some(_), false) => Err(Failure::param("id: not together with key")),
        (id, _) if params.is_empty() => Select::read_id(&id.unwrap_or(Json::Object(key))),
        _ => Err(Failure::param("id: not together with other parameters")),
    }
}

/// `filter[age][gte]` → `("filter", Some("age"), Some("gte"))`
fn split_name(name: &str) -> (&str, Option<&str>, Option<&str>) {
    let Some((head, rest)) = name.split_once('[') else {
        return (name, None, None);
    };
    match rest.strip_suffix(']') {
        Some(inner) => match inner.split_once("][") {
            Some((column, test)) => (head, Some(column), Some(test)),
            None => (head, Some(inner), None),
        },
        None => (name, None, None),
    }
}

fn add_filter(params: &mut Map<String, Json>, column: &str, test: Option<&str>, value: &str) {
    let value = match serde_json::from_str::<Json>(value) {
        Ok(json @ (Json::Null | Json::Bool(_) | Json::Number(_))) => json,
        _ => Json::String(value.to_owned()),
    };
    let filter = params.entry("filter").or_insert_with(|| json!({}));
    let slot = &mut filter[column];
    match test {
        // `filter[col][like]=12` is text, whatever it looks like.
        Some("like") => slot_object(slot).insert("like".into(), text_of(value).into()),
        Some(test) => slot_object(slot).insert(test.to_owned(), value),
        None => {
            let before = slot_object(slot).remove("eq");
            let joined = match before {
                None => value,
                Some(Json::Array(mut list)) => {
                    list.push(value);
                    list.into()
                }
                Some(one) => vec![one, value].into(),
            };
            slot_object(slot).insert("eq".into(), joined)
        }
    };
}

fn slot_object(slot: &mut Json) -> &mut Map<String, Json> {
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("was just made an object")
}

fn text_of(value: Json) -> String {
    match value {
        Json::String(text) => text,
        other => other.to_string(),
    }
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

    #[test]
    fn parameters_that_contradict_each_other_are_refused() {
        for text in [
            r#"{"all":true,"page":1}"#,
            r#"{"all":true,"after":"00"}"#,
            r#"{"page":0}"#,
            r#"{"size":-1}"#,
            r#"{"order":5}"#,
            r#"{"order":"a b c"}"#,
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

    #[test]
    fn a_url_says_what_a_frame_says() {
        let query = "page=2&size=20&order=name%20desc&filter[ward]=%223%22&filter[age][gte]=80&filter[left_at]=null&filter[floor]=1&filter[floor]=2";
        let frame = r#"{"page":2,"size":20,"order":"name desc","filter":{"ward":"\"3\"","age":{"gte":80},"left_at":null,"floor":[1,2]}}"#;
        assert_eq!(query_string(query), select(frame));
        assert_eq!(query_string("id=7"), Select::read_id(&json!("7")));
        assert_eq!(
            query_string("key[a]=1&key[b]=x"),
            Select::read_id(&json!({"a":"1","b":"x"}))
        );
    }
}

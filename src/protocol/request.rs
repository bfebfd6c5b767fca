//! What a client sends: a direct query, or a session frame.

use serde_json::{Map, Value as Json};

use super::{ErrorCode, Failure, Params, Select};
use crate::{position::Position, topic::is_topic_name};

/// A request's own id, echoed in its answer: a string of at most 64 characters or an integer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rid {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

/// One frame from a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A direct query, answered to this socket alone.
    Query {
        /// The topic's name; not necessarily one that exists.
        topic: String,
        /// The request's id.
        rid: Option<Rid>,
        /// What is asked for.
        select: Select,
    },
    /// `sys:hello`
    Hello(Hello),
    /// `sys:subscribe`: these topics, too.
    Subscribe(Option<Rid>, Vec<String>),
    /// `sys:unsubscribe`: these topics no more.
    Unsubscribe(Option<Rid>, Vec<String>),
    /// `sys:auth`: a new token.
    Auth(Option<Rid>),
    /// `sys:ping`
    Ping(Option<Rid>),
}

/// `sys:hello`: what the client wants, and where it left off.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hello {
    /// The request's id.
    pub rid: Option<Rid>,
    /// Only these topics; all where none.
    pub types: Option<Vec<String>>,
    /// The cursor to resume from.
    pub since: Option<Position>,
}

// === impl Rid ===

impl Rid {
    /// The rid as JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
        }
    }

    fn read(frame: &Map<String, Json>) -> Result<Option<Self>, Failure> {
        match frame.get("rid") {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Number(number)) if number.is_i64() => Ok(number.as_i64().map(Self::Number)),
            Some(Json::String(text)) if text.chars().count() <= 64 => {
                Ok(Some(Self::Text(text.clone())))
            }
            Some(_) => Err(Failure::param("rid: an integer or at most 64 characters")),
        }
    }
}

// === impl Request ===

impl Request {
    /// Reads one text frame.
    ///
    /// # Errors
    /// The [`Failure`] to answer with. Only [`ErrorCode::BadJson`] counts as malformed.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let frame: Map<String, Json> =
            serde_json::from_str(text).map_err(|_| ErrorCode::BadJson)?;
        let rid = Rid::read(&frame)?;
        Self::read(&frame, rid.clone()).map_err(|failure| failure.to(rid))
    }

    fn read(frame: &Map<String, Json>, rid: Option<Rid>) -> Result<Self, Failure> {
        let name = match frame.get("type") {
            Some(Json::String(name)) => name,
            // The tutorial reads a missing type as one that nobody knows.
            None => return Err(ErrorCode::UnknownType.into()),
            Some(_) => return Err(Failure::param("type: a string")),
        };
        match name.as_str() {
            "sys:hello" => Ok(Self::Hello(Hello::read(frame, rid)?)),
            "sys:subscribe" => Ok(Self::Subscribe(rid, subscribed(frame.get("types"))?)),
            "sys:unsubscribe" => Ok(Self::Unsubscribe(rid, names(frame.get("types"))?)),
            "sys:auth" => Ok(Self::Auth(rid)),
            "sys:ping" => Ok(Self::Ping(rid)),
            // Our own prefix, but no frame of ours.
            other if !is_topic_name(other) => Err(ErrorCode::UnknownType.into()),
            other => Ok(Self::Query {
                topic: other.to_owned(),
                rid,
                select: select(frame)?,
            }),
        }
    }
}

fn select(frame: &Map<String, Json>) -> Result<Select, Failure> {
    let params = match frame.get("params") {
        None | Some(Json::Null) => None,
        Some(Json::Object(params)) => Some(params),
        Some(_) => return Err(Failure::param("params: an object")),
    };
    match (frame.get("id"), params) {
        // The tutorial's front end sends `id: null` or nothing at all.
        (None | Some(Json::Null), None) => Ok(Select::Page(Params::default())),
        (None | Some(Json::Null), Some(params)) => Select::read(params),
        (Some(id), None) => Select::read_id(id),
        (Some(_), Some(_)) => Err(Failure::param("id: not together with params")),
    }
}

impl Hello {
    fn read(frame: &Map<String, Json>, rid: Option<Rid>) -> Result<Self, Failure> {
        let types = match frame.get("types") {
            None | Some(Json::Null) => None,
            Some(Json::Object(_)) => Some(subscribed(frame.get("types"))?),
            Some(_) => Some(names(frame.get("types"))?),
        };
        let since = match frame.get("since") {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => Some(
                text.parse()
                    .map_err(|_| Failure::param("since: a cursor"))?,
            ),
            Some(_) => return Err(Failure::param("since: a cursor")),
        };
        match frame.get("mode").map(Json::as_str) {
            None | Some(Some("every")) => {}
            Some(_) => return Err(Failure::param("mode: \"every\"")),
        }
        Ok(Self { rid, types, since })
    }
}

/// `["patient", …]`
fn names(types: Option<&Json>) -> Result<Vec<String>, Failure> {
    let wrong = || Failure::param("types: an array of topic names");
    let list = types.and_then(Json::as_array).ok_or_else(wrong)?;
    list.iter()
        .map(|name| name.as_str().filter(|name| is_topic_name(name)))
        .map(|name| name.map(str::to_owned).ok_or_else(wrong))
        .collect()
}

/// `{"patient":{}, …}`, or the names alone.
fn subscribed(types: Option<&Json>) -> Result<Vec<String>, Failure> {
    let Some(Json::Object(map)) = types else {
        return names(types);
    };
    for (name, options) in map {
        match options {
            Json::Object(options) if options.is_empty() && is_topic_name(name) => {}
            _ => return Err(Failure::param("types: topic names, each with {}")),
        }
    }
    Ok(map.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> (ErrorCode, Option<Rid>) {
        let failure = Request::parse(text).unwrap_err();
        (failure.code, failure.rid)
    }

    #[test]
    fn the_bare_query_is_the_tutorials() {
        let request = Request::parse(r#"{"type":"all_patient_page_data","unknown":1}"#).unwrap();
        let expected = Request::Query {
            topic: "all_patient_page_data".into(),
            rid: None,
            select: Select::Page(Params::default()),
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn what_is_no_request_says_why() {
        for text in ["", "null", "[]", "5", "\"x\"", "{", "{\"type\":1}x"] {
            assert_eq!(fails(text).0, ErrorCode::BadJson, "{text}");
        }
        assert_eq!(fails("{}").0, ErrorCode::UnknownType);
        assert_eq!(
            fails(r#"{"type":"sys:nonsense","rid":3}"#),
            (ErrorCode::UnknownType, Some(Rid::Number(3)))
        );
        assert_eq!(fails(r#"{"type":"a","rid":1.5}"#).0, ErrorCode::BadParam);
        assert_eq!(fails(r#"{"type":"a","params":[]}"#).0, ErrorCode::BadParam);
        assert_eq!(
            fails(r#"{"type":"a","id":1,"params":{}}"#).0,
            ErrorCode::BadParam
        );
        assert_eq!(
            fails(r#"{"type":"sys:hello","since":"no"}"#).0,
            ErrorCode::BadParam
        );
        assert_eq!(
            fails(r#"{"type":"sys:subscribe","types":{"a":{"filter":{}}}}"#).0,
            ErrorCode::BadParam
        );
    }
}

//! What a client sends: a direct query, or a session frame.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{
    Condition, ErrorCode, Failure, JsonLimits, Params, Select, json::read, params::read_filter,
};
use crate::{position::Position, topic::is_topic_name};

/// A request's own id, echoed in its answer: a string of at most 64 characters or an integer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
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
    /// `sys:subscribe`: these topics, too, each with the filter given.
    Subscribe(Option<Rid>, Vec<Interest>),
    /// `sys:unsubscribe`: these topics no more.
    Unsubscribe(Option<Rid>, Vec<String>),
    /// `sys:auth`: a new token.
    Auth(Option<Rid>, Option<Token>),
    /// `sys:ping`
    Ping(Option<Rid>),
}

/// `sys:hello`: what the client wants, and where it left off.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hello {
    /// The request's id.
    pub rid: Option<Rid>,
    /// Only these topics; all where none.
    pub types: Option<Vec<Interest>>,
    /// The cursor to resume from.
    pub since: Option<Position>,
    /// How events are sent; as the URL says where none.
    pub mode: Option<Mode>,
    /// Whether the welcome is to say which topics there are.
    pub topics: bool,
    /// Who it is that says hello.
    pub token: Option<Token>,
}

/// A token as a client sends it, not judged. It is never shown.
#[derive(Clone, PartialEq)]
pub struct Token(String);

/// A topic, and which of its rows are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Interest {
    /// The topic's name; not necessarily one that exists.
    pub topic: String,
    /// Conditions, all of which must hold; none for every row.
    pub filter: Vec<Condition>,
}

/// What is sent to a socket that has fallen behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every event.
    #[default]
    Every,
    /// The newest of each key.
    Latest,
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
        match member(frame, "rid") {
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
    /// The [`Failure`] to answer with. [`ErrorCode::is_malformed`] says which count as malformed.
    pub fn parse(text: &str, limits: &JsonLimits) -> Result<Self, Failure> {
        let read = read(text, limits)?;
        let rid = Rid::read(&read.members);
        if let Some(broken) = read.broken {
            return Err(broken.to(rid.ok().flatten()));
        }
        Self::with(&read.members, rid?, limits)
    }

    /// Reads a frame that is an object already.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of(frame: &Map<String, Json>, limits: &JsonLimits) -> Result<Self, Failure> {
        Self::with(frame, Rid::read(frame)?, limits)
    }

    fn with(
        frame: &Map<String, Json>,
        rid: Option<Rid>,
        limits: &JsonLimits,
    ) -> Result<Self, Failure> {
        let token = member(frame, "token").and_then(Json::as_str);
        if token.is_some_and(|token| token.len() > limits.token_bytes) {
            let failure = Failure {
                detail: Some("token: it is too long"),
                ..ErrorCode::PayloadTooLarge.into()
            };
            return Err(failure.to(rid));
        }
        Self::read(frame, rid.clone()).map_err(|failure| failure.to(rid))
    }

    /// The request's id.
    pub fn rid(&self) -> Option<&Rid> {
        match self {
            Self::Hello(hello) => hello.rid.as_ref(),
            Self::Query { rid, .. }
            | Self::Subscribe(rid, _)
            | Self::Unsubscribe(rid, _)
            | Self::Auth(rid, _)
            | Self::Ping(rid) => rid.as_ref(),
        }
    }

    fn read(frame: &Map<String, Json>, rid: Option<Rid>) -> Result<Self, Failure> {
        let name = match member(frame, "type") {
            Some(Json::String(name)) => name,
            // The tutorial reads a missing type as one that nobody knows.
            None => return Err(ErrorCode::UnknownType.into()),
            Some(_) => return Err(Failure::param("type: a string")),
        };
        match name.as_str() {
            "sys:hello" => Ok(Self::Hello(Hello::read(frame, rid)?)),
            "sys:subscribe" => Ok(Self::Subscribe(rid, subscribed(member(frame, "types"))?)),
            "sys:unsubscribe" => Ok(Self::Unsubscribe(rid, names(member(frame, "types"))?)),
            "sys:auth" => Ok(Self::Auth(rid, Token::read(frame)?)),
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

/// A member of a request. There are few of them: to look at each costs less than to hash a name.
fn member<'a>(frame: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    let found = frame.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value)
}

fn select(frame: &Map<String, Json>) -> Result<Select, Failure> {
    let params = match member(frame, "params") {
        None | Some(Json::Null) => None,
        Some(Json::Object(params)) => Some(params),
        Some(_) => return Err(Failure::param("params: an object")),
    };
    match (member(frame, "id"), params) {
        // The tutorial's front end sends `id: null` or nothing at all.
        (None | Some(Json::Null), None) => Ok(Select::Page(Params::default())),
        (None | Some(Json::Null), Some(params)) => Select::read(params),
        (Some(id), None) => Select::read_id(id),
        (Some(_), Some(_)) => Err(Failure::param("id: not together with params")),
    }
}

impl Hello {
    fn read(frame: &Map<String, Json>, rid: Option<Rid>) -> Result<Self, Failure> {
        let types = match member(frame, "types") {
            None | Some(Json::Null) => None,
            given => Some(subscribed(given)?),
        };
        let since = match member(frame, "since") {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => Some(
                text.parse()
                    .map_err(|_| Failure::param("since: a cursor"))?,
            ),
            Some(_) => return Err(Failure::param("since: a cursor")),
        };
        let mode = match member(frame, "mode") {
            None | Some(Json::Null) => None,
            Some(mode) => Some(Mode::parse(mode.as_str().unwrap_or_default())?),
        };
        let topics = match member(frame, "topics") {
            None | Some(Json::Null) => false,
            Some(Json::Bool(wanted)) => *wanted,
            Some(_) => return Err(Failure::param("topics: true or false")),
        };
        Ok(Self {
            rid,
            types,
            since,
            mode,
            topics,
            token: Token::read(frame)?,
        })
    }
}

impl Token {
    fn read(frame: &Map<String, Json>) -> Result<Option<Self>, Failure> {
        match member(frame, "token") {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(Self(text.clone()))),
            Some(_) => Err(Failure::param("token: a string")),
        }
    }

    /// The text, for who judges it.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
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

/// `{"patient":{"filter":{…}}, …}`, or the names alone.
fn subscribed(types: Option<&Json>) -> Result<Vec<Interest>, Failure> {
    let Some(Json::Object(map)) = types else {
        let all = |topic| Interest {
            topic,
            filter: Vec::new(),
        };
        return Ok(names(types)?.into_iter().map(all).collect());
    };
    let interests = map.iter().map(|(name, options)| match options {
        Json::Object(options) if is_topic_name(name) => Ok(Interest {
            topic: name.clone(),
            filter: filter(options.get("filter"))?,
        }),
        _ => Err(Failure::param("types: topic names, each with an object")),
    });
    interests.collect()
}

/// The filter of a query; what is wrong with it is told without the query's `params`.
fn filter(filter: Option<&Json>) -> Result<Vec<Condition>, Failure> {
    read_filter(filter).map_err(|failure| Failure {
        detail: failure
            .detail
            .map(|detail| detail.strip_prefix("params.").unwrap_or(detail)),
        ..failure
    })
}

impl Mode {
    /// Reads `every` or `latest`.
    ///
    /// # Errors
    /// [`ErrorCode::BadParam`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "every" => Ok(Self::Every),
            "latest" => Ok(Self::Latest),
            _ => Err(Failure::param("mode: \"every\" or \"latest\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, Failure> {
        Request::parse(text, &JsonLimits::default())
    }

    fn fails(text: &str) -> (ErrorCode, Option<Rid>) {
        let failure = parse(text).unwrap_err();
        (failure.code, failure.rid)
    }

    #[test]
    fn the_bare_query_is_the_tutorials() {
        let request = parse(r#"{"type":"all_patient_page_data","unknown":1}"#).unwrap();
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
            fails(r#"{"type":"sys:subscribe","types":{"a":{"filter":{"b":{"near":1}}}}}"#).0,
            ErrorCode::BadParam
        );
        assert_eq!(
            fails(r#"{"type":"sys:hello","mode":"some"}"#).0,
            ErrorCode::BadParam
        );
        assert_eq!(
            fails(r#"{"type":"sys:hello","topics":["a"]}"#).0,
            ErrorCode::BadParam
        );
    }

    #[test]
    fn a_subscription_names_topics_with_or_without_a_filter() {
        let text = r#"{"type":"sys:subscribe","types":{"a":{"filter":{"b":[1,null]}},"c":{}}}"#;
        let Ok(Request::Subscribe(None, interests)) = parse(text) else {
            panic!("a subscription")
        };
        assert_eq!(interests[0].topic, "a");
        assert_eq!(interests[0].filter.len(), 1);
        assert!(interests[1].topic == "c" && interests[1].filter.is_empty());
        let text = r#"{"type":"sys:hello","types":["a"],"mode":"latest"}"#;
        let Ok(Request::Hello(hello)) = parse(text) else {
            panic!("a hello")
        };
        assert_eq!(hello.mode, Some(Mode::Latest));
        assert!(hello.types.unwrap()[0].filter.is_empty());
    }

    #[test]
    fn a_token_has_a_length_and_an_integer_is_exact() {
        let hello = |bytes| {
            format!(
                r#"{{"type":"sys:hello","rid":1,"token":"{}"}}"#,
                "t".repeat(bytes)
            )
        };
        assert!(parse(&hello(4096)).is_ok());
        let long = (ErrorCode::PayloadTooLarge, Some(Rid::Number(1)));
        assert_eq!(fails(&hello(4097)), long);
        let number = |id: &str| format!(r#"{{"type":"a","rid":1,"id":{id}}}"#);
        for id in [
            "9007199254740991",
            "-9007199254740991",
            "\"9223372036854775807\"",
            "1.5",
        ] {
            assert!(parse(&number(id)).is_ok(), "{id}");
        }
        let beyond = (ErrorCode::NumberRange, Some(Rid::Number(1)));
        for id in [
            "9007199254740992",
            "-9007199254740992",
            "9223372036854775808",
            "1e20",
        ] {
            assert_eq!(fails(&number(id)), beyond, "{id}");
        }
        // It goes back as it came.
        assert!(parse(r#"{"type":"a","rid":9007199254740992}"#).is_ok());
    }
}

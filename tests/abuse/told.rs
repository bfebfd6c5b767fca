//! What a server says, as far as it concerns whoever tries to harm it.

use serde_json::Value as Json;

/// One thing that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Rows.
    Reply,
    /// `sys:error`, by code and slug.
    Error(u16, String),
    /// Another frame, by its type.
    Frame(String),
    /// A text that is no frame: the tutorial's echo.
    Text,
    /// A pong with this in it.
    Pong(Vec<u8>),
    /// A close with this code, if any.
    Closed(Option<u16>),
    /// The connection is over.
    Cut,
    /// An HTTP answer, by its status and the slug of an error of ours.
    Status(u16, String),
}

/// `sys:error` with that code and slug.
pub fn error(code: u16, slug: &str) -> Told {
    Told::Error(code, slug.into())
}

/// The error of a message that is no JSON object.
pub fn bad_json() -> Told {
    error(400, "bad_json")
}

/// The error of a wrong parameter.
pub fn bad_param() -> Told {
    error(400, "bad_param")
}

/// The error of a type that no topic has.
pub fn unknown_type() -> Told {
    error(404, "unknown_type")
}

/// A frame of the protocol.
pub fn framed(kind: &str) -> Told {
    Told::Frame(kind.into())
}

/// A close with that code.
pub fn closed(code: u16) -> Told {
    Told::Closed(Some(code))
}

/// An answer of HTTP.
pub fn status(status: u16, slug: &str) -> Told {
    Told::Status(status, slug.into())
}

impl Told {
    /// What a text frame says.
    pub fn text(payload: &[u8]) -> Self {
        let Ok(Json::Object(frame)) = serde_json::from_slice(payload) else {
            return Self::Text;
        };
        let kind = frame["type"].as_str().unwrap_or_default();
        match frame.get("error").and_then(Json::as_str) {
            Some(slug) => {
                let code = frame["code"].as_u64().and_then(|code| code.try_into().ok());
                Self::Error(code.unwrap_or(0), slug.into())
            }
            None if frame.get("op").is_some_and(|op| op == "replace") => Self::Reply,
            None => Self::Frame(kind.into()),
        }
    }

    /// What an HTTP answer says; nothing is a connection that was cut.
    pub fn answer(text: &str) -> Self {
        let Some(code) = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)) else {
            return Self::Cut;
        };
        let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let body: Json = serde_json::from_str(body).unwrap_or_default();
        Self::Status(
            code.parse().unwrap_or(0),
            body["error"].as_str().unwrap_or_default().into(),
        )
    }
}

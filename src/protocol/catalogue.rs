//! The catalogue of errors and closes: what each means, and what the client does next.

use serde::Deserialize;

use super::Rid;

/// The language of `msg` texts. Slugs and codes are the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Chinese, the tutorial's.
    #[default]
    Zh,
    /// English.
    En,
}

/// Why a request got no reply. The socket stays open and in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a JSON object. Mend the client; the eleventh in a minute closes the socket.
    BadJson,
    /// A name stands twice in one object, so that nobody knows which is meant. Mend the client.
    DuplicateKey,
    /// Objects and arrays too deep inside one another. Mend the client.
    TooDeep,
    /// An integer beyond ±(2^53 − 1), which JSON does not carry exactly. Send its text.
    NumberRange,
    /// U+0000 in a text, which no database stores. Leave it out.
    NulNotAllowed,
    /// A parameter is wrong. Mend the client.
    BadParam,
    /// Nothing says who asks. Bring a token.
    TokenMissing,
    /// The token is over. Bring a new one.
    TokenExpired,
    /// The token was revoked. Sign in again.
    TokenRevoked,
    /// The token is not one for this server. Sign in again.
    TokenInvalid,
    /// An origin or a permission is missing.
    Forbidden,
    /// No topic has this name.
    UnknownType,
    /// There is nothing at this path.
    NotFound,
    /// This path takes another method.
    MethodNotAllowed,
    /// The request did not come to its end in time. Send it again.
    RequestTimeout,
    /// The body, one of a message's texts, or the number of its members is over a limit. Send less.
    PayloadTooLarge,
    /// The body must be `application/json`.
    UnsupportedMediaType,
    /// This server is not called by the `Host` of the request. Ask for it by its name.
    Misdirected,
    /// This path is a WebSocket. Ask for an upgrade, with version 13.
    UpgradeRequired,
    /// Too many requests at once, or in a second. Ask again after `retry_after_ms`.
    TooManyRequests,
    /// A fault of ours. Report it.
    Internal,
    /// The database cannot be read now. Ask again later; broadcasting goes on.
    DbUnavailable,
    /// The bus cannot store now. Publish again later, with the same `id`.
    BusUnavailable,
    /// The process has just started, and waits for its database or its bus. Ask again after
    /// `retry_after_ms`.
    Starting,
    /// There is no room for another connection. Come back after `retry_after_ms`.
    Overloaded,
    /// Who asks cannot be found out now. Ask again later, with the same token.
    AuthUnavailable,
    /// The query took too long. Ask for less.
    QueryTimeout,
}

/// An error with what only the place where it happened knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub code: ErrorCode,
    /// Which of our own parameters is concerned; never the client's text.
    pub detail: Option<&'static str>,
    /// When asking again makes sense.
    pub retry_after_ms: Option<u32>,
    /// The request's id, where it could be read.
    pub rid: Option<Rid>,
}

/// Why the server closes a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client asked for it.
    Normal,
    /// The server process restarts.
    Restart,
    /// The server has no room. Come back later.
    Overloaded,
    /// A frame breaks RFC 6455.
    ProtocolError,
    /// Text is expected, bytes came.
    Binary,
    /// The text is not UTF-8.
    NotUtf8,
    /// The message is over 64 KiB.
    TooBig,
    /// The message comes in too many fragments.
    TooManyFragments,
    /// The client sends pings and pongs all the time.
    TooManyControls,
    /// The client sends messages at ten times the rate at which it is answered.
    TooManyMessages,
    /// Whoever the client says it is has all the connections that he may have. Come back later.
    TooManyConnections,
    /// The client did not read for too long; its cursor stays valid.
    TooSlow,
    /// More than ten malformed frames in a minute.
    Malformed,
    /// No hello in time.
    Unauthorized,
    /// Nothing says who the client is.
    TokenMissing,
    /// Its token is over. Come back with a new one, and the cursor.
    TokenExpired,
    /// Its token was revoked.
    TokenRevoked,
    /// Its token is not one for this server.
    TokenInvalid,
    /// Who it is cannot be found out now. Come back later.
    AuthUnavailable,
    /// This origin may not connect.
    Forbidden,
    /// A ping was not answered.
    NoPong,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The number that goes with it, an HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadJson
            | Self::DuplicateKey
            | Self::TooDeep
            | Self::NumberRange
            | Self::NulNotAllowed
            | Self::BadParam => 400,
            Self::TokenMissing | Self::TokenExpired | Self::TokenRevoked | Self::TokenInvalid => {
                401
            }
            Self::Forbidden => 403,
            Self::UnknownType | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Misdirected => 421,
            Self::UpgradeRequired => 426,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::DbUnavailable
            | Self::BusUnavailable
            | Self::Starting
            | Self::Overloaded
            | Self::AuthUnavailable => 503,
            Self::QueryTimeout => 504,
        }
    }

    /// Whether a client that sends this does not speak the protocol: too many of them close its socket.
    pub fn is_malformed(self) -> bool {
        matches!(
            self,
            Self::BadJson | Self::DuplicateKey | Self::TooDeep | Self::PayloadTooLarge
        )
    }

    /// Whether the request is beyond a limit, or what can be stored.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Self::DuplicateKey
                | Self::TooDeep
                | Self::PayloadTooLarge
                | Self::NumberRange
                | Self::NulNotAllowed
        )
    }

    /// The stable name that programs tell errors apart by.
    pub fn slug(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::DuplicateKey => "duplicate_key",
            Self::TooDeep => "too_deep",
            Self::NumberRange => "number_range",
            Self::NulNotAllowed => "nul_not_allowed",
            Self::BadParam => "bad_param",
            Self::TokenMissing => "token_missing",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::TokenInvalid => "token_invalid",
            Self::Forbidden => "forbidden",
            Self::UnknownType => "unknown_type",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Misdirected => "misdirected",
            Self::UpgradeRequired => "upgrade_required",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::DbUnavailable => "db_unavailable",
            Self::BusUnavailable => "bus_unavailable",
            Self::Starting => "starting",
            Self::Overloaded => "overloaded",
            Self::AuthUnavailable => "auth_unavailable",
            Self::QueryTimeout => "query_timeout",
        }
    }

    /// The text for a person. `bad_json`'s Chinese one is the tutorial's.
    pub fn message(self, language: Language) -> &'static str {
        let (zh, en) = match self {
            Self::BadJson => ("传递的数据有问题", "the message is not a JSON object"),
            Self::DuplicateKey => ("同一个键出现了两次", "a name stands twice in one object"),
            Self::TooDeep => (
                "数据嵌套过深",
                "objects and arrays are too deep in one another",
            ),
            Self::NumberRange => (
                "整数超出范围,请改用字符串",
                "an integer is beyond 2^53 - 1, send it as a string",
            ),
            Self::NulNotAllowed => ("文本中不能有 U+0000", "a text holds U+0000"),
            Self::BadParam => ("参数有误", "a parameter is wrong"),
            Self::TokenMissing => ("请先登录", "a token is needed"),
            Self::TokenExpired => ("登录已过期", "the token has expired"),
            Self::TokenRevoked => ("登录已被撤销", "the token was revoked"),
            Self::TokenInvalid => ("登录信息无效", "the token is not valid here"),
            Self::Forbidden => ("没有权限", "not allowed"),
            Self::UnknownType => ("未知的数据类型", "no topic has this type"),
            Self::NotFound => ("没有这个地址", "there is nothing at this path"),
            Self::MethodNotAllowed => ("请求方法不对", "this path takes another method"),
            Self::RequestTimeout => ("请求超时", "the request took too long to come"),
            Self::PayloadTooLarge => ("内容过大", "it is too large"),
            Self::UnsupportedMediaType => (
                "请求体必须是 application/json",
                "the body must be application/json",
            ),
            Self::Misdirected => (
                "这里不是请求的主机",
                "this server does not answer to the name in Host",
            ),
            Self::UpgradeRequired => ("这个地址是 WebSocket", "this path is a WebSocket"),
            Self::TooManyRequests => (
                "请求过于频繁,请稍后再试",
                "too many requests, ask again later",
            ),
            Self::Internal => ("服务器内部错误", "an internal error"),
            Self::DbUnavailable => ("数据库暂时不可用", "the database cannot be read now"),
            Self::BusUnavailable => ("消息总线暂时不可用", "the bus cannot store now"),
            Self::Starting => (
                "服务正在启动,请稍后再试",
                "the server is starting, ask again later",
            ),
            Self::Overloaded => (
                "连接数已满,请稍后再试",
                "no room for another connection, come back later",
            ),
            Self::AuthUnavailable => (
                "暂时无法验证身份,请稍后再试",
                "who you are cannot be verified now, try again later",
            ),
            Self::QueryTimeout => ("查询超时", "the query took too long"),
        };
        match language {
            Language::Zh => zh,
            Language::En => en,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// A failure of that kind, with nothing more to say.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            retry_after_ms: None,
            rid: None,
        }
    }

    /// A wrong parameter, and what is allowed.
    pub fn param(detail: &'static str) -> Self {
        Self {
            detail: Some(detail),
            ..Self::new(ErrorCode::BadParam)
        }
    }

    /// The same failure as the answer to a request.
    pub fn to(mut self, rid: Option<Rid>) -> Self {
        self.rid = rid;
        self
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

// === impl CloseReason ===

impl CloseReason {
    /// The close code (RFC 6455 §7.4; 4000–4999 are ours).
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::ProtocolError => 1002,
            Self::Binary => 1003,
            Self::NotUtf8 => 1007,
            Self::TooManyFragments | Self::TooManyControls => 1008,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::Overloaded | Self::AuthUnavailable => 1013,
            Self::TooSlow => 4008,
            Self::Malformed => 4400,
            Self::Unauthorized
            | Self::TokenMissing
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::TokenInvalid => 4401,
            Self::Forbidden => 4403,
            Self::NoPong => 4408,
            Self::TooManyMessages | Self::TooManyConnections => 4429,
        }
    }

    /// The reason sent beside the code, at most 123 bytes.
    pub fn text(self) -> &'static str {
        match self {
            Self::Normal => "bye",
            Self::ProtocolError => "a frame breaks the WebSocket protocol",
            Self::Binary => "send text, not bytes",
            Self::NotUtf8 => "the text is not UTF-8",
            Self::TooBig => "the message is too long",
            Self::TooManyFragments => "the message comes in too many fragments",
            Self::TooManyControls => "too many pings and pongs",
            Self::TooManyMessages => "too many messages: reconnect later with your cursor",
            Self::TooManyConnections => {
                "too many connections of this identity: close some, or reconnect later"
            }
            Self::Restart => "restarting: reconnect with your cursor",
            Self::Overloaded => "no room: reconnect later",
            Self::TooSlow => "too slow: reconnect with your cursor",
            Self::Malformed => "more than ten malformed frames in a minute",
            Self::Unauthorized => "no sys:hello in time",
            Self::TokenMissing => "a token is needed",
            Self::TokenExpired => "the token has expired: reconnect with a new one and your cursor",
            Self::TokenRevoked => "the token was revoked",
            Self::TokenInvalid => "the token is not valid here",
            Self::AuthUnavailable => "who you are cannot be verified now: reconnect later",
            Self::Forbidden => "this origin may not connect",
            Self::NoPong => "no pong: reconnect with your cursor",
        }
    }

    /// Whether the same client may come back, unchanged, with its cursor.
    pub fn may_reconnect(self) -> bool {
        matches!(
            self,
            Self::Restart
                | Self::Overloaded
                | Self::AuthUnavailable
                | Self::TooSlow
                | Self::NoPong
                | Self::TooManyMessages
                | Self::TooManyConnections
        )
    }

    /// Whether nothing may follow any more, not even what waits to be written: the client has no right to
    /// it.
    pub fn silences(self) -> bool {
        matches!(self, Self::TokenExpired | Self::TokenRevoked)
    }
}

//! The wire, version 1: everything that a client can send or see (docs/protocol.md).
//! No other file spells a frame, an error or a close code.

mod after;
mod catalogue;
mod encoded;
mod frame;
mod json;
mod params;
mod request;
mod turned;
mod url;

pub use after::After;
pub use catalogue::{CloseReason, ErrorCode, Failure, Language};
pub use encoded::{Encoded, Grown, MAX_HEADER_BYTES, put_header};
pub use frame::{
    Page, ResetReason, caught_up, drain, error, event, ok, page_push, pong, reply, reset, tick,
    welcome,
};
pub use json::{JsonLimits, check_event, object};
pub use params::{Condition, Key, MAX_IN_LIST, Params, Select, Test};
pub use request::{Hello, Interest, Mode, Request, Rid, Token};
pub use turned::{data_of, narrowed, turned};
pub use url::query_string;

/// The group that every socket of `/socket/all/` joins.
pub const GROUP: &str = "chat_all_data";

/// The most bytes of a message from a client.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// How the tutorial's echo answers; `%s` is the local time.
pub const ECHO_PREFIX: &str = "我收到了,";

/// The text on which the tutorial's echo closes the socket.
pub const ECHO_CLOSE: &str = "close";

/// What the tutorial's trigger views answer.
pub const UPDATED: &str = "更新数据成功";

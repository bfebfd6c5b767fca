//! The browser's client: a module, and what it is for TypeScript. Pages of any origin may import it;
//! whether they may connect is another matter (`origins.rs`).

use axum::{
    http::{HeaderMap, HeaderValue},
    response::Response,
};

use super::files::{
    File,
    kind::{JAVASCRIPT, TEXT},
};

static MODULE: File = File::new(
    "rowcast.js",
    JAVASCRIPT,
    include_str!("../../client/rowcast.js"),
);

static TYPES: File = File::new(
    "rowcast.d.ts",
    TEXT,
    include_str!("../../client/rowcast.d.ts"),
);

/// `GET /rowcast.js`
pub async fn module(asked: HeaderMap) -> Response {
    let mut response = MODULE.answer_anybody(&asked);
    // Where Deno looks for the types of a module that it imports by its address.
    response.headers_mut().insert(
        "x-typescript-types",
        HeaderValue::from_static("./rowcast.d.ts"),
    );
    response
}

/// `GET /rowcast.d.ts`
pub async fn types(asked: HeaderMap) -> Response {
    TYPES.answer_anybody(&asked)
}

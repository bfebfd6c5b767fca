//! The console: one page and its files, embedded in the binary.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};

use super::Edge;
use crate::protocol::ErrorCode;

/// The page's files, by the name under which `/console/` serves them.
const FILES: [(&str, &str, &str); 7] = [
    (
        "console.css",
        "text/css; charset=utf-8",
        include_str!("../../web/console.css"),
    ),
    (
        "console.js",
        JAVASCRIPT,
        include_str!("../../web/console.js"),
    ),
    ("i18n.js", JAVASCRIPT, include_str!("../../web/i18n.js")),
    ("rows.js", JAVASCRIPT, include_str!("../../web/rows.js")),
    ("socket.js", JAVASCRIPT, include_str!("../../web/socket.js")),
    ("table.js", JAVASCRIPT, include_str!("../../web/table.js")),
    ("tester.js", JAVASCRIPT, include_str!("../../web/tester.js")),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// `GET /`
pub async fn page() -> Response {
    content(
        "text/html; charset=utf-8",
        include_str!("../../web/index.html"),
    )
}

/// `GET /console/{file}`
pub async fn file(State(edge): State<Arc<Edge>>, Path(name): Path<String>) -> Response {
    if name == "icon.svg" {
        return content("image/svg+xml", include_str!("../../web/icon.svg"));
    }
    match FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, kind, text)) => content(kind, text),
        None => edge.refuse(ErrorCode::NotFound).into_response(),
    }
}

fn content(kind: &'static str, text: &'static str) -> Response {
    // Another version of the binary serves another page under the same name.
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        text,
    )
        .into_response()
}

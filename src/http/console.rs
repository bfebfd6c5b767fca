//! The console: one page and its files.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};

use super::{
    Edge,
    files::{
        File,
        kind::{CSS, HTML, JAVASCRIPT, SVG},
    },
};
use crate::protocol::ErrorCode;

/// A file of the folder `web/`.
macro_rules! web {
    ($name:literal, $kind:expr) => {
        File::new($name, $kind, include_str!(concat!("../../web/", $name)))
    };
}

static PAGE: File = web!("index.html", HTML);

/// The page's files, each served as `/console/NAME`.
static FILES: &[File] = &[
    web!("connection.js", JAVASCRIPT),
    web!("console.css", CSS),
    web!("console.js", JAVASCRIPT),
    web!("element.js", JAVASCRIPT),
    web!("en.js", JAVASCRIPT),
    web!("filter.js", JAVASCRIPT),
    web!("frame-list.js", JAVASCRIPT),
    web!("grid.js", JAVASCRIPT),
    web!("i18n.js", JAVASCRIPT),
    web!("icon.svg", SVG),
    web!("letters.js", JAVASCRIPT),
    web!("memory.js", JAVASCRIPT),
    web!("pipeline.js", JAVASCRIPT),
    web!("publish.js", JAVASCRIPT),
    web!("sign-in.js", JAVASCRIPT),
    web!("snippets.js", JAVASCRIPT),
    web!("table.js", JAVASCRIPT),
    web!("tables.js", JAVASCRIPT),
    web!("tester.js", JAVASCRIPT),
    web!("theme.js", JAVASCRIPT),
    web!("toasts.js", JAVASCRIPT),
    web!("token.js", JAVASCRIPT),
    web!("topics.js", JAVASCRIPT),
    web!("views.css", CSS),
    web!("views.js", JAVASCRIPT),
    web!("zh.js", JAVASCRIPT),
];

/// `GET /`
pub async fn page(asked: HeaderMap) -> Response {
    PAGE.answer(&asked)
}

/// `GET /console/{file}`
pub async fn file(
    State(edge): State<Arc<Edge>>,
    Path(name): Path<String>,
    asked: HeaderMap,
) -> Response {
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => file.answer(&asked),
        None => edge.refuse(ErrorCode::NotFound).into_response(),
    }
}

//! The tutorial's two trigger views. There the view function pushed to the group; here it only
//! writes, and the push follows from the database.

use std::{path::Path, sync::Arc};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{Edge, answer};
use crate::{
    protocol::{ErrorCode, Failure, UPDATED},
    source::sqlite::Waker,
    store::{
        StoreError,
        demo::{DemoTable, DemoWriter},
    },
};

/// What the views write with.
#[derive(Debug)]
pub struct Demo {
    /// Inserts the row.
    pub writer: DemoWriter,
    /// Wakes the source of this process, which would else notice at its next poll.
    pub waker: Option<Waker>,
    /// A command for another terminal that changes a row.
    pub hint: String,
}

/// A command that changes a row of the demo, for a shell, with a program that this machine has.
pub fn hint(database: &Path) -> String {
    let update = "update patient set ward='5' where id=1";
    let path = database.display().to_string();
    match on_path("sqlite3") {
        true => format!("sqlite3 {} \"{update}\"", quoted(&path)),
        false => format!(
            "python3 -c \"import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
             c.execute('''{update}'''); c.commit()\" {}",
            quoted(&path)
        ),
    }
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    match path.chars().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// `POST /chat/update/info/`: a new patient.
pub async fn update_info(state: State<Arc<Edge>>, request: Request) -> Response {
    update(state, request, DemoTable::Patient).await
}

/// `POST /chat/update/record/`: a new visit.
pub async fn update_record(state: State<Arc<Edge>>, request: Request) -> Response {
    update(state, request, DemoTable::Visit).await
}

async fn update(State(edge): State<Arc<Edge>>, request: Request, table: DemoTable) -> Response {
    let Some(demo) = &edge.demo else {
        return edge.refuse(ErrorCode::NotFound).into_response();
    };
    let body = answer::json_object(request, edge.body_timeout, &edge.gateway.config.json).await;
    // What it writes waits for its turn among everybody's.
    let admitted = body.and_then(|body| Ok((body, edge.publisher.admit()?)));
    let (body, _place) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => {
            edge.limited(&failure);
            return edge.refuse(failure).into_response();
        }
    };
    match demo.writer.insert(table, body).await {
        Ok(()) => {
            if let Some(waker) = &demo.waker {
                waker.wake();
            }
            answer::ok(json!({ "code": 200, "msg": UPDATED }).to_string())
        }
        Err(StoreError::BadParam(detail)) => edge.refuse(Failure::param(detail)).into_response(),
        Err(err) => {
            tracing::warn!(error = %err, "a row of the demo cannot be inserted");
            edge.refuse(ErrorCode::DbUnavailable).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted("rowcast.db"), "rowcast.db");
        assert_eq!(quoted("数据/care.db"), "数据/care.db");
        assert_eq!(quoted("a b's.db"), "'a b'\\''s.db'");
    }
}

//! The tutorial's two trigger views. There the view function pushed to the group; here it only
//! writes, and the push follows from the database.

use std::sync::Arc;

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
    /// Wakes the source, which would else notice at its next poll.
    pub waker: Waker,
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
    let body = match answer::json_object(request).await {
        Ok(body) => body,
        Err(code) => return edge.refuse(code).into_response(),
    };
    match demo.writer.insert(table, body).await {
        Ok(()) => {
            demo.waker.wake();
            answer::ok(json!({ "code": 200, "msg": UPDATED }).to_string())
        }
        Err(StoreError::BadParam(detail)) => edge.refuse(Failure::param(detail)).into_response(),
        Err(err) => {
            tracing::warn!(error = %err, "a row of the demo cannot be inserted");
            edge.refuse(ErrorCode::DbUnavailable).into_response()
        }
    }
}

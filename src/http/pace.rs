//! How often anybody may ask for what reaches the database or the bus.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Edge, farewell, stream, who::Whence};
use crate::identity::Identity;

/// Refuses a request that comes too early, whatever it asks for; who sends it is known by now.
pub async fn kept(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let nobody = Identity::anonymous();
    let asker = extensions.get::<Identity>().unwrap_or(&nobody);
    let from = extensions.get::<Whence>().map(|from| from.0);
    match edge.gateway.keep_pace(asker, from) {
        Ok(()) => next.run(request).await,
        Err(failure) => {
            let refused = edge.refuse(failure);
            match stream::is_event_source(request.headers()) {
                // It would give up for good.
                true => stream::come_back(farewell::RETRY_MS),
                false => refused.into_response(),
            }
        }
    }
}

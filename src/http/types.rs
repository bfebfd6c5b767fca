//! `GET /api/types`: the topics' rows as types for other programs, as `rowcast types` prints them.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Response},
};

use super::{Edge, answer};
use crate::{identity::Identity, protocol::Failure, topic::Notation};

/// `GET /api/types?lang=`
pub async fn types(
    State(edge): State<Arc<Edge>>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.as_deref().unwrap_or("");
    match edge.write_types(query, &identity).await {
        Ok((Notation::Schema, text)) => answer::ok(text),
        // Not as TypeScript, which browsers offer to save instead of showing it.
        Ok((Notation::TypeScript, text)) => {
            let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
            let fresh = (header::CACHE_CONTROL, "no-store");
            ([kind, fresh], text).into_response()
        }
        Err(failure) => edge.refuse(failure).into_response(),
    }
}

impl Edge {
    async fn write_types(
        &self,
        query: &str,
        identity: &Identity,
    ) -> Result<(Notation, String), Failure> {
        let lang = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "lang");
        let notation = match lang {
            None => Some(Notation::default()),
            Some((_, lang)) => Notation::parse(&lang),
        };
        let notation = notation.ok_or(Failure::param("lang: ts or schema"))?;
        let mut described = Vec::new();
        for topic in self.gateway.topics_of(identity).iter() {
            let table = match topic.view {
                Some(_) => {
                    let table = self.gateway.queries.described(topic).await?;
                    Some(Arc::unwrap_or_clone(table))
                }
                None => None,
            };
            described.push((topic.clone(), table));
        }
        Ok((notation, notation.write(&described)))
    }
}

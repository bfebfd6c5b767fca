//! A direct query as the parameters of a URL: the same request as on the socket, in the spelling
//! that a browser's address line allows.

use serde_json::{Map, Value as Json, json};

use super::{ErrorCode, Failure, Select};

/// Reads the parameters of `GET /api/query/{type}` as a request's `id` and `params`.
///
/// Values of filters that are spelled like a JSON number, true, false or null are those; others
/// are text. A repeated `filter[col]` makes an IN list.
///
/// # Errors
/// [`super::ErrorCode::BadParam`] with the parameter's name, and [`ErrorCode::NulNotAllowed`].
pub fn query_string(query: &str) -> Result<Select, Failure> {
    let (mut params, mut key, mut id) = (Map::new(), Map::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name.contains('\0') || value.contains('\0') {
            return Err(ErrorCode::NulNotAllowed.into());
        }
        let text = || Json::String(value.to_string());
        match split_name(&name) {
            ("id", None, None) => id = Some(text()),
            ("page" | "size", None, None) => {
                let number = value
                    .parse::<u32>()
                    .map_err(|_| Failure::param("page, size: integers from 1"))?;
                params.insert(name.to_string(), number.into());
            }
            ("after", None, None) => drop(params.insert("after".into(), text())),
            ("all", None, None) => {
                let flag = match &*value {
                    "" | "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err(Failure::param("all: true or false")),
                };
                params.insert("all".into(), flag.into());
            }
            ("order", None, None) => {
                let list: Vec<Json> = value.split(',').map(|by| by.trim().into()).collect();
                params.insert("order".into(), list.into());
            }
            ("key", Some(column), None) => drop(key.insert(column.into(), text())),
            ("filter", Some(column), test) => add_filter(&mut params, column, test, &value),
            // As on the socket, what is not known is ignored.
            _ => {}
        }
    }
    match (id, key.is_empty()) {
        (None, true) => Select::read(&params),
        (Some(_), false) => Err(Failure::param("id: not together with key")),
        (id, _) if params.is_empty() => Select::read_id(&id.unwrap_or(Json::Object(key))),
        _ => Err(Failure::param("id: not together with other parameters")),
    }
}

/// `filter[age][gte]` → `("filter", Some("age"), Some("gte"))`
fn split_name(name: &str) -> (&str, Option<&str>, Option<&str>) {
    let Some((head, rest)) = name.split_once('[') else {
        return (name, None, None);
    };
    match rest.strip_suffix(']') {
        Some(inner) => match inner.split_once("][") {
            Some((column, test)) => (head, Some(column), Some(test)),
            None => (head, Some(inner), None),
        },
        None => (name, None, None),
    }
}

fn add_filter(params: &mut Map<String, Json>, column: &str, test: Option<&str>, value: &str) {
    let text = value;
    let value = match serde_json::from_str::<Json>(text) {
        Ok(json @ (Json::Null | Json::Bool(_) | Json::Number(_))) => json,
        _ => text.into(),
    };
    let filter = params.entry("filter").or_insert_with(|| json!({}));
    let slot = &mut filter[column];
    match test {
        // `filter[col][like]=12` is text, whatever it looks like.
        Some("like") => slot_object(slot).insert("like".into(), text.into()),
        Some(test) => slot_object(slot).insert(test.to_owned(), value),
        None => {
            let before = slot_object(slot).remove("eq");
            let joined = match before {
                None => value,
                Some(Json::Array(mut list)) => {
                    list.push(value);
                    list.into()
                }
                Some(one) => vec![one, value].into(),
            };
            slot_object(slot).insert("eq".into(), joined)
        }
    };
}

fn slot_object(slot: &mut Json) -> &mut Map<String, Json> {
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("was just made an object")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(text: &str) -> Result<Select, Failure> {
        Select::read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_url_says_what_a_frame_says() {
        let query = "page=2&size=20&order=name%20desc&filter[ward]=%223%22&filter[age][gte]=80&filter[left_at]=null&filter[floor]=1&filter[floor]=2";
        let frame = r#"{"page":2,"size":20,"order":"name desc","filter":{"ward":"\"3\"","age":{"gte":80},"left_at":null,"floor":[1,2]}}"#;
        assert_eq!(query_string(query), select(frame));
        // It would be written 0.0 as a number.
        assert_eq!(
            query_string("filter[note][like]=0e0"),
            select(r#"{"filter":{"note":{"like":"0e0"}}}"#)
        );
        assert_eq!(query_string("id=7"), Select::read_id(&json!("7")));
        assert_eq!(
            query_string("key[a]=1&key[b]=x"),
            Select::read_id(&json!({"a":"1","b":"x"}))
        );
    }
}

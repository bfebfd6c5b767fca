//! What must hold for every input: the wire reads back what it wrote, and no value is rounded.
//! More cases: `PROPTEST_CASES=20000 cargo test properties`.

use proptest::{collection::vec, prelude::*};
use rowcast::{
    event::{Batch, Body, ChangeData, Delivery, Event, Op},
    position::{Check, Checkpoint, Epoch, Position},
    protocol::{
        self, After, Condition, ErrorCode, Failure, JsonLimits, Language, Page, Params, Request,
        Rid, Select, Test, query_string,
    },
    row::{self, MAX_SAFE_INTEGER, Rows, Value},
    topic::Order,
};
use serde_json::{Map, Value as Json, json, value::RawValue};

fn parse(text: &str) -> Result<Request, Failure> {
    Request::parse(text, &JsonLimits::default())
}

// === values of all kinds ===

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "[\\x00-\\x7f]{0,12}",
        Just("王秀英\u{2028}\\\"\0".to_owned())
    ]
}

fn reals() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits),
        Just(-0.0),
        Just(1e23)
    ]
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        (-3..4_i64).prop_map(|n| Value::Integer(MAX_SAFE_INTEGER + n)),
        reals().prop_map(Value::Real),
        texts().prop_map(Value::Text),
        vec(any::<u8>(), 0..20).prop_map(Value::Blob),
    ]
}

fn positions() -> impl Strategy<Value = Position> {
    let check = proptest::option::of(any::<u64>().prop_map(|id| Check::of(&id.to_le_bytes())));
    let parts = ("[a-z0-9]{1,16}", any::<u64>(), check);
    parts.prop_map(|(epoch, offset, check)| {
        Position::new(Epoch::parse(&epoch).unwrap(), offset).checked(check)
    })
}

fn rids() -> impl Strategy<Value = Option<Rid>> {
    prop_oneof![
        Just(None),
        any::<i64>().prop_map(|n| Some(Rid::Number(n))),
        "\\PC{0,64}".prop_map(|text| Some(Rid::Text(text))),
    ]
}

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let one = ("[A-Za-z_一-龥]{1,8}", any::<bool>());
    vec(
        one.prop_map(|(column, descending)| Order { column, descending }),
        0..4,
    )
}

/// What a request may hold.
fn operands() -> impl Strategy<Value = Value> {
    values().prop_map(|value| match value {
        Value::Text(text) => Value::Text(text.replace('\0', "")),
        value => value,
    })
}

fn tests() -> impl Strategy<Value = Test> {
    let some = operands()
        .prop_filter("null has no order", |value| *value != Value::Null)
        .boxed();
    prop_oneof![
        operands().prop_map(Test::Eq),
        operands().prop_map(Test::Ne),
        some.clone().prop_map(Test::Lt),
        some.clone().prop_map(Test::Lte),
        some.clone().prop_map(Test::Gt),
        some.prop_map(Test::Gte),
        "\\PC{0,12}".prop_map(Test::Like),
        vec(operands(), 0..5).prop_map(Test::In),
    ]
}

fn encode(value: &Value) -> String {
    let mut out = Vec::new();
    row::write_value(&mut out, value);
    String::from_utf8(out).unwrap()
}

/// NaN is no value that equals itself, and -0.0 equals 0.0: compare what is stored.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

fn member_names(frame: &Json) -> Vec<&str> {
    let frame = frame.as_object().expect("a frame is an object");
    frame.keys().map(String::as_str).collect()
}

proptest! {
    #[test]
    fn a_value_becomes_json_and_nothing_is_rounded(value in values()) {
        let text = encode(&value);
        let json: Json = serde_json::from_str(&text).unwrap();
        match &value {
            Value::Null => prop_assert!(json.is_null()),
            Value::Integer(integer) => {
                let safe = integer.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs();
                prop_assert_eq!(json.is_number(), safe);
                prop_assert_eq!(text.trim_matches('"').parse(), Ok(*integer));
                // A browser's number is a double.
                prop_assert!(!safe || text.parse::<f64>().unwrap() as i64 == *integer);
            }
            Value::Real(real) if real.is_finite() => {
                prop_assert!(json.is_number(), "{}", text);
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), real.to_bits());
            }
            Value::Boolean(truth) => prop_assert_eq!(json, Json::from(*truth)),
            Value::Json(given) => prop_assert_eq!(text, given.to_string()),
            Value::Real(real) => {
                let back: f64 = json.as_str().unwrap().parse().unwrap();
                prop_assert!(back == *real || (back.is_nan() && real.is_nan()));
            }
            Value::Text(given) => prop_assert_eq!(json.as_str(), Some(given.as_str())),
            Value::Blob(bytes) => {
                prop_assert_eq!(row::unhex(json.as_str().unwrap()), Some(bytes.clone()));
            }
        }
    }

    #[test]
    fn a_row_keeps_its_columns_and_their_order(pairs in vec((texts(), values()), 0..8)) {
        let mut out = Vec::new();
        row::write_object(&mut out, pairs.iter().map(|(name, value)| (name.as_str(), value)));
        let text = String::from_utf8(out).unwrap();
        let members: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}:{}", json!(name), encode(value)))
            .collect();
        prop_assert_eq!(&text, &format!("{{{}}}", members.join(",")));
        prop_assert!(serde_json::from_str::<Map<String, Json>>(&text).is_ok());
    }

    #[test]
    fn parts_hold_every_row_once_and_no_more_than_they_may(
        lengths in vec(0..200_usize, 0..60),
        max_bytes in 1..600_usize,
    ) {
        let mut rows = Rows::default();
        for length in &lengths {
            let value = Value::Text("x".repeat(*length));
            rows.push([("a", &value)].into_iter());
        }
        let parts = rows.parts(max_bytes);
        prop_assert!(!parts.is_empty());
        let all: Vec<usize> = parts.iter().cloned().flatten().collect();
        prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        for part in parts {
            // `{"a":""}` around each.
            let bytes: usize = lengths[part.clone()].iter().map(|length| length + 8).sum();
            prop_assert!(part.len() <= 1 || bytes <= max_bytes, "{} in {:?}", bytes, part);
            let mut out = Vec::new();
            rows.write_array(&mut out, part.clone());
            let array: Vec<Json> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(array.len(), part.len());
        }
    }

    #[test]
    fn a_cursor_reads_back_and_has_one_spelling(position in positions(), junk in "\\PC{0,20}") {
        let read: Position = position.to_string().parse().unwrap();
        prop_assert_eq!((&read, read.check), (&position, position.check));
        if let Ok(read) = junk.parse::<Position>() {
            prop_assert_eq!(read.to_string(), junk);
        }
    }

    #[test]
    fn a_checkpoint_reads_back(source in "[a-z2-7]{0,16}", high: u64, low: u32) {
        let checkpoint = Checkpoint { source: source.as_str().into(), high, low };
        prop_assert_eq!(checkpoint.to_string().parse::<Checkpoint>(), Ok(checkpoint.clone()));
        prop_assert!(checkpoint.covers(&checkpoint));
    }

    #[test]
    fn a_page_token_carries_everything_exactly(
        topic in "[A-Za-z0-9_-]{1,64}",
        size in 1..=u32::MAX,
        order in orders(),
        filter in vec(("\\PC{1,8}", tests()), 0..4),
        last in vec(values(), 0..5),
    ) {
        let filter: Vec<Condition> = filter
            .into_iter()
            .map(|(column, test)| Condition { column, test })
            .collect();
        let params = Params { page: None, size: Some(size), order, filter };
        let after = After { topic, params, last };
        let token = after.token();
        prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric()), "no escape in a URL");
        let request = json!({ "type": "t", "params": { "after": token } }).to_string();
        let Ok(Request::Query { select: Select::After(read), .. }) = parse(&request) else {
            return Err(TestCaseError::fail(format!("refused: {request}")));
        };
        prop_assert_eq!(read.token(), token);
        prop_assert_eq!(&read.topic, &after.topic);
        prop_assert!(read.last.iter().zip(&after.last).all(|(a, b)| same(a, b)));
        prop_assert_eq!(read.last.len(), after.last.len());
    }

    #[test]
    fn a_number_in_a_request_is_the_number_that_was_sent(real in any::<f64>()) {
        prop_assume!(real.is_finite() && real.fract() != 0.0);
        let value = Value::Real(real);
        let request = format!(r#"{{"type":"t","params":{{"filter":{{"a":{}}}}}}}"#, encode(&value));
        let Ok(Request::Query { select: Select::Page(params), .. }) = parse(&request) else {
            return Err(TestCaseError::fail(format!("refused: {request}")));
        };
        prop_assert_eq!(&params.filter[0].test, &Test::Eq(value));
    }

    #[test]
    fn a_token_of_somebody_elses_making_is_refused_or_harmless(token in "[0-9a-f]{0,80}") {
        let request = json!({ "type": "t", "params": { "after": token } }).to_string();
        if let Err(failure) = parse(&request) {
            let codes = [ErrorCode::BadParam, ErrorCode::NulNotAllowed];
            prop_assert!(codes.contains(&failure.code));
        }
    }

    #[test]
    fn any_text_is_a_request_or_an_answerable_failure(text in "\\PC{0,60}", rid in rids()) {
        for text in [text.clone(), format!("{{\"type\":{}}}", json!(text))] {
            let frame = match parse(&text) {
                Ok(_) => continue,
                Err(failure) => protocol::error(&failure, Language::Zh),
            };
            prop_assert!(serde_json::from_str::<Json>(&frame).unwrap()["code"].is_u64());
        }
        // Whatever is wrong further in, the answer finds its request.
        let mut frame = json!({ "type": "sys:nonsense" });
        if let Some(rid) = &rid {
            frame["rid"] = rid.to_json();
        }
        prop_assert_eq!(parse(&frame.to_string()).unwrap_err().rid, rid);
    }

    #[test]
    fn a_reply_reads_back_part_by_part(
        rid in rids(),
        cells in vec(values(), 0..30),
        total: u64,
        exact: bool,
        cursor in positions(),
        part_bytes in proptest::option::of(1..200_usize),
    ) {
        let mut rows = Rows::default();
        for value in &cells {
            rows.push([("v", value)].into_iter());
        }
        let page = Page { number: None, size: 5, total, next: Some("ab".into()) };
        let frames = protocol::reply("t", rid.as_ref(), &rows, Some(&page), Some(&cursor), (exact, part_bytes));
        let mut found = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            let frame: Json = serde_json::from_str(frame).unwrap();
            prop_assert_eq!(&frame["type"], "t");
            prop_assert_eq!(&frame["op"], "replace");
            prop_assert_eq!(frame.get("rid").cloned(), rid.as_ref().map(Rid::to_json));
            prop_assert_eq!(&frame["cursor"], &cursor.to_string());
            prop_assert_eq!(frame.get("exact").is_none(), exact);
            prop_assert_eq!(&frame["page"]["total"], &json!(total));
            if part_bytes.is_some() {
                prop_assert_eq!(&frame["part"], index + 1);
                prop_assert_eq!(&frame["last"], &json!(index + 1 == frames.len()));
            }
            let rows = frame["data"].as_array().unwrap();
            found.extend(rows.iter().map(|row| row["v"].clone()));
        }
        let expected: Vec<Json> = cells
            .iter()
            .map(|value| serde_json::from_str(&encode(value)).unwrap())
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn an_event_survives_the_bus_and_reaches_the_wire(
        text in texts(),
        at_ms in 0..4_000_000_000_000_i64,
        position in positions(),
        high: u64,
        too_large: bool,
    ) {
        let object = json!({ "k": text });
        let raw = || Some(RawValue::from_string(object.to_string()).unwrap());
        let checkpoint = Checkpoint { source: "s".into(), high, low: 0 };
        let event = Event {
            id: format!("{checkpoint}/t"),
            source: format!("/test/{text}"),
            topic: "t".into(),
            subject: Some(text),
            at_ms,
            tx: Some("s.1".into()),
            xid: None,
            body: Body::Change {
                checkpoint,
                data: ChangeData { key: raw(), old_key: raw(), row: raw(), too_large, ..ChangeData::whole(Op::Update) },
            },
        };
        let stored = event.to_json();
        let read = Event::from_json(&stored, true).unwrap();
        prop_assert_eq!(read.to_json(), stored);
        let delivery = Delivery { position: position.clone(), event: Some(read) };
        let frame: Json = serde_json::from_str(&protocol::event(&delivery).unwrap()).unwrap();
        prop_assert_eq!(&frame["key"], &object);
        prop_assert_eq!(&frame["data"], &object);
        prop_assert_eq!(&frame["ts"], at_ms);
        prop_assert_eq!(&frame["cursor"], &position.to_string());
        prop_assert_eq!(member_names(&frame).contains(&"too_large"), too_large);
    }

    #[test]
    fn an_applications_data_reaches_the_wire_as_given(id in "\\PC{1,20}", value in values()) {
        let data = encode(&value);
        let text = format!(r#"{{"type":"t","id":{},"data":{data}}}"#, json!(id));
        let event = Event::from_application(&text, String::new(), 5).unwrap();
        let batch = Batch { events: vec![event], checkpoint: None, more: false, marks: Vec::new() };
        let read = Event::from_json(&batch.events[0].to_json(), false).unwrap();
        prop_assert_eq!(&read.id, &id);
        let delivery = Delivery { position: "e:1".parse().unwrap(), event: Some(read) };
        let frame = protocol::event(&delivery).unwrap();
        prop_assert!(frame.contains(&format!("\"op\":\"event\",\"data\":{data},")), "{}", frame);
    }

    #[test]
    fn a_url_asks_for_what_a_frame_asks_for(
        page in proptest::option::of(1..1000_u32),
        size in proptest::option::of(1..1000_u32),
        order in orders(),
        filter in proptest::collection::btree_map("[a-z一-龥 ]{1,6}", url_tests(), 0..4),
    ) {
        let (mut query, mut params) = (form_urlencoded::Serializer::new(String::new()), Map::new());
        for (name, number) in [("page", page), ("size", size)] {
            if let Some(number) = number {
                query.append_pair(name, &number.to_string());
                params.insert(name.into(), number.into());
            }
        }
        if !order.is_empty() {
            let list: Vec<String> = order
                .iter()
                .map(|by| format!("{}{}", by.column, if by.descending { " desc" } else { "" }))
                .collect();
            query.append_pair("order", &list.join(","));
            params.insert("order".into(), json!(list));
        }
        let mut wanted = Map::new();
        for (column, (test, value)) in &filter {
            let text = match value {
                Json::String(text) => text.clone(),
                other => other.to_string(),
            };
            match test {
                Some(test) => {
                    query.append_pair(&format!("filter[{column}][{test}]"), &text);
                    wanted.insert(column.clone(), json!({ *test: value }));
                }
                None => {
                    query.append_pair(&format!("filter[{column}]"), &text);
                    wanted.insert(column.clone(), value.clone());
                }
            }
        }
        if !wanted.is_empty() {
            params.insert("filter".into(), wanted.into());
        }
        let frame = json!({ "type": "t", "params": params }).to_string();
        let Ok(Request::Query { select, .. }) = parse(&frame) else {
            return Err(TestCaseError::fail(format!("refused: {frame}")));
        };
        prop_assert_eq!(query_string(&query.finish()), Ok(select));
    }

    #[test]
    fn no_query_string_is_too_strange(query in "\\PC{0,60}") {
        if let Err(Failure { code, .. }) = query_string(&query) {
            prop_assert_eq!(code, ErrorCode::BadParam);
        }
    }
}

/// A test and a value that a URL can spell: a text that looks like a number is one there.
fn url_tests() -> impl Strategy<Value = (Option<&'static str>, Json)> {
    let value = prop_oneof![
        (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        "[a-z王 &=%+]{1,8}"
            .prop_filter("spelled like JSON", |text| serde_json::from_str::<Json>(
                text
            )
            .is_err())
            .prop_map(Json::from),
    ];
    let test = prop_oneof![
        Just(None),
        Just(Some("eq")),
        Just(Some("ne")),
        Just(Some("lt")),
        Just(Some("gte")),
    ];
    prop_oneof![
        4 => (test, value),
        1 => Just((None, Json::Null)),
        1 => Just((Some("ne"), Json::Null)),
        1 => "[a-z%_0-9]{0,8}".prop_map(|pattern| (Some("like"), Json::String(pattern))),
    ]
}

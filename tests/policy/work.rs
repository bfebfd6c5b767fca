//! What is another's and what is not there take the same work: the same statements, as often, with nothing found.
//! A stopwatch would tell of the machine; the database counts what it does.

use serde_json::{Value as Json, json};

use super::home::{Home, nurse};
use crate::support::{
    Socket, in_time,
    postgres::{Cluster, Database},
    wait_for,
};

/// Pages of the table or of an index that finding a row and throwing it away may take more than finding none.
const PAGES: i64 = 2;

/// A statement on the table but for its values, how often it ran, what it found, and how many pages it looked at.
type Statement = (String, i64, i64, i64);

fn statements(database: &Database) -> Vec<Statement> {
    let rows = database.sql(
        "SELECT queryid, calls, rows, shared_blks_hit + shared_blks_read FROM pg_stat_statements
         WHERE query LIKE '%\"patient\"%' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
         ORDER BY queryid",
    );
    let told = rows.into_iter().map(|row| {
        let mut row = row.into_iter().flatten();
        let query = row.next().unwrap();
        let mut number = || row.next().unwrap().parse().unwrap();
        (query, number(), number(), number())
    });
    told.collect()
}

/// The answer, and what the database did for it.
async fn work(
    home: &Home,
    socket: &mut Socket,
    question: &Json,
    reads: bool,
) -> (Json, Vec<Statement>) {
    home.database.sql("SELECT pg_stat_statements_reset()");
    let answer = in_time("an answer", socket.ask(question.clone())).await;
    // A statement is counted when it is over, which may be after its rows have been sent.
    let done = wait_for("the statement to be counted", || {
        let done = statements(&home.database);
        (!reads || !done.is_empty()).then_some(done)
    });
    (answer, done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_anothers_and_what_is_not_there_are_the_same_work() {
    let cluster = Cluster::own(&[("shared_preload_libraries", "pg_stat_statements")]);
    let database = cluster.database();
    database.sql("CREATE EXTENSION pg_stat_statements");
    let home = Home::on(database, "", Vec::new()).await;
    // So many that nothing is found by looking at all of them.
    home.database.sql(
        "INSERT INTO patient SELECT 777100000 + n, 'CANARY-elm', '1', 'CANARY' || n, 'a', 'flu' FROM generate_series(1, 4000) n;
         CREATE INDEX ON patient (name)",
    );
    home.database.sql("VACUUM ANALYZE patient");
    let mut socket = home.socket(&nurse(), "").await;
    // Of statements that are prepared once for a session, and of tables that are described once.
    let warm = json!({"type": "patient", "rid": 1, "id": 1});
    assert_eq!(socket.ask(warm).await["data"][0]["name"], "Ann");
    let filter = |filter: Json| json!({"type": "patient", "rid": 1, "params": {"filter": filter}});
    for (theirs, nobodys, reads) in [
        (
            json!({"type": "patient", "rid": 1, "id": 777_102_000}),
            json!({"type": "patient", "rid": 1, "id": 888_102_000}),
            true,
        ),
        (
            filter(json!({"id": 777_102_000})),
            filter(json!({"id": 888_102_000})),
            true,
        ),
        (
            filter(json!({"name": "CANARY2000"})),
            filter(json!({"name": "CANARY-no"})),
            true,
        ),
        (
            filter(json!({"name": {"like": "%ANARY2000"}})),
            filter(json!({"name": {"like": "%ANARY-no"}})),
            true,
        ),
        // A column that is hidden, and one that does not exist; a topic of the same kind.
        (
            filter(json!({"diagnosis": "flu"})),
            filter(json!({"nosuchone": "flu"})),
            false,
        ),
        (
            json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"tenant": "CANARY-elm"}}}}),
            json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"absent": "CANARY-elm"}}}}),
            false,
        ),
    ] {
        let (found, did) = work(&home, &mut socket, &theirs, reads).await;
        let (nothing, else_did) = work(&home, &mut socket, &nobodys, reads).await;
        assert_eq!(found["data"], nothing["data"], "{theirs}");
        assert_eq!(found["error"], nothing["error"], "{theirs}");
        let alike = |did: &[Statement]| -> Vec<(String, i64, i64)> {
            let told = did.iter();
            told.map(|(query, calls, rows, _)| (query.clone(), *calls, *rows))
                .collect()
        };
        assert_eq!(alike(&did), alike(&else_did), "{theirs}");
        for (one, other) in did.iter().zip(&else_did) {
            assert!(
                (one.3 - other.3).abs() <= PAGES,
                "{theirs}: {one:?} {other:?}"
            );
        }
    }
}

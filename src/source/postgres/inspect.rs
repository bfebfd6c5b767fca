//! What `rowcast check` says of a database before a producer runs, and what `rowcast remove`
//! takes off again.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::{
    CONNECT_TIMEOUT, is_name,
    publication::{self, Identity},
    refused::Refused,
    relations::Watched,
    slot,
};
use crate::postgres::{self, Address, TlsMode};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// As it should be, or as the producer will make it.
    Fine,
    /// It works, and could be better.
    Advice,
    /// The producer would not run, or not follow every table.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What was found.
    pub what: String,
    /// What to do about it, unless it is fine.
    pub remedy: Option<String>,
}

const SERVER: &str = "
    SELECT current_setting('server_version_num')::int4, current_setting('server_version'),
        current_setting('wal_level'), pg_is_in_recovery(),
        current_setting('max_replication_slots')::int8
            - (SELECT count(*) FROM pg_replication_slots),
        current_setting('max_wal_senders')::int8
            - (SELECT count(*) FROM pg_stat_replication),
        r.rolreplication OR r.rolsuper, r.rolsuper,
        has_database_privilege(current_database(), 'CREATE'),
        pg_has_role('pg_read_all_stats', 'USAGE') OR r.rolsuper,
        (SELECT bool_and(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc
            WHERE proname = 'pg_logical_emit_message'),
        pg_size_bytes(current_setting('max_slot_wal_keep_size', true)),
        coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)
    FROM pg_roles r WHERE r.rolname = current_user";

const TABLE: &str = "
    SELECT has_table_privilege(c.oid, 'SELECT'), pg_has_role(c.relowner, 'USAGE')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = split_part($1, '.', 1) AND c.relname = split_part($1, '.', 2)";

/// Looks at everything that a producer needs, and changes nothing. With `reads` the same role also
/// answers queries; a producer beside gateways reads no table.
///
/// # Errors
/// The database cannot be asked at all.
pub async fn inspect(
    address: &Address,
    watched: &Watched,
    slot: &str,
    publication: &str,
    reads: bool,
) -> Result<Vec<Finding>, Refused> {
    let client = connect(address).await?;
    let mut findings = Vec::new();
    for (what, name) in [("slot", slot), ("publication", publication)] {
        if !is_name(name) {
            findings.push(bad(
                format!("the {what}'s name \"{name}\""),
                "use 1 to 63 of a-z, 0-9 and _",
            ));
        }
    }
    let keep = server(&client, address, &mut findings).await?;
    tables(&client, watched, publication, reads, &mut findings).await?;
    look_at_slot(&client, slot, keep, &mut findings).await?;
    Ok(findings)
}

/// Takes slot and publication off again; tells what was removed. A publication that is not ours
/// stays.
///
/// # Errors
/// A producer still reads the slot, or the database says no.
pub async fn remove(
    address: &Address,
    slot: &str,
    publication: &str,
) -> Result<Vec<String>, Refused> {
    let client = connect(address).await?;
    let mut removed = Vec::new();
    if let Some(found) = slot::find(&client, slot).await? {
        if !found.usable {
            return Err(Refused::new(format!(
                "the replication slot \"{slot}\" is another's"
            )));
        }
        if let Some(pid) = found.active_pid {
            return Err(Refused::new(format!(
                "the replication slot \"{slot}\" is read by process {pid} of the server: stop the \
                 producer first"
            )));
        }
        let sql = "SELECT pg_catalog.pg_drop_replication_slot($1::text::name)";
        client.query(sql, &[&slot]).await?;
        removed.push(format!("replication slot \"{slot}\""));
    }
    if publication::remove(&client, publication).await? {
        removed.push(format!("publication \"{publication}\""));
    }
    Ok(removed)
}

async fn connect(address: &Address) -> Result<Client, Refused> {
    let connected = postgres::connect(address, CONNECT_TIMEOUT, &["lock_timeout=5s"]).await;
    let connected = connected.map_err(|err| Refused::new(err.to_string()))?;
    Ok(connected.client)
}

/// Returns `max_slot_wal_keep_size`, if the server has such a limit.
async fn server(
    client: &Client,
    address: &Address,
    findings: &mut Vec<Finding>,
) -> Result<Option<i64>, Refused> {
    let row = client.query_one(SERVER, &[]).await?;
    let (number, version): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let wal_level: String = row.try_get(2)?;
    let (standby, slots, senders): (bool, i64, i64) =
        (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let (replication, superuser, creates): (bool, bool, bool) =
        (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
    let (stats, emits): (bool, bool) = (row.try_get(9)?, row.try_get(10)?);
    let (keep, encrypted): (Option<i64>, bool) = (row.try_get(11)?, row.try_get(12)?);
    let user = address.user();
    let mut judge = |fine: bool, grade, what: String, remedy: String| {
        findings.push(match fine {
            true => Finding {
                grade: Grade::Fine,
                what,
                remedy: None,
            },
            false => Finding {
                grade,
                what,
                remedy: Some(remedy),
            },
        });
    };
    let fail = Grade::Failure;
    judge(
        number >= 140_000,
        fail,
        format!("PostgreSQL {version}"),
        "14 or later is needed".into(),
    );
    judge(
        wal_level == "logical",
        fail,
        format!("wal_level is {wal_level}"),
        "ALTER SYSTEM SET wal_level = logical, and restart the server".into(),
    );
    judge(
        !standby,
        fail,
        format!(
            "the server is a {}",
            if standby { "standby" } else { "primary" }
        ),
        "name the primary".into(),
    );
    judge(
        slots > 0,
        Grade::Advice,
        format!("{slots} replication slots are free"),
        "raise max_replication_slots, and restart the server, unless ours is there already".into(),
    );
    judge(
        senders > 0,
        Grade::Advice,
        format!("{senders} WAL senders are free"),
        "raise max_wal_senders, and restart the server, unless ours runs already".into(),
    );
    judge(
        replication,
        fail,
        format!("role {user} {} REPLICATION", has(replication)),
        format!("ALTER ROLE {} REPLICATION", postgres::quote(user)),
    );
    judge(
        creates || superuser,
        Grade::Advice,
        format!(
            "role {user} {} CREATE on the database",
            has(creates || superuser)
        ),
        format!(
            "GRANT CREATE ON DATABASE {} TO {}, or make the publication by hand",
            postgres::quote(address.dbname()),
            postgres::quote(user)
        ),
    );
    judge(
        emits,
        fail,
        format!("role {user} {} pg_logical_emit_message", may(emits)),
        "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) to it".into(),
    );
    judge(
        stats,
        Grade::Advice,
        format!(
            "role {user} {} see when other producers last answered",
            may(stats)
        ),
        format!(
            "GRANT pg_read_all_stats TO {}: else a frozen producer is replaced only after \
             wal_sender_timeout",
            postgres::quote(user)
        ),
    );
    let keep = keep.filter(|bytes| *bytes >= 0);
    judge(
        keep.is_some(),
        Grade::Advice,
        match keep {
            Some(bytes) => format!("max_slot_wal_keep_size is {} MB", bytes >> 20),
            None => "the server keeps WAL for a slot without a limit".into(),
        },
        "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB': else a producer that stays away fills \
         the disk"
            .into(),
    );
    let local = address.is_socket() || ["localhost", "127.0.0.1", "::1"].contains(&address.host());
    judge(
        encrypted || local,
        Grade::Advice,
        format!(
            "the connection is {}encrypted",
            if encrypted { "" } else { "not " }
        ),
        "add sslmode=verify-full to the database's URL".into(),
    );
    if encrypted && !local && !matches!(address.tls(), TlsMode::VerifyCa | TlsMode::VerifyFull) {
        judge(
            false,
            Grade::Advice,
            "the server's certificate is not checked".into(),
            "add sslmode=verify-full to the database's URL".into(),
        );
    }
    Ok(keep)
}

async fn tables(
    client: &Client,
    watched: &Watched,
    name: &str,
    reads: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Refused> {
    let standing = publication::standing(client, watched).await?;
    let found = publication::find(client, name).await?;
    // A table that its owner has published needs nobody else.
    let published = |table: &str| {
        let theirs = found.as_ref().filter(|found| !found.ours);
        theirs.is_some_and(|found| found.tables.contains(table))
    };
    for table in watched.tables() {
        let Some(stand) = standing.get(table) else {
            findings.push(bad(
                format!("there is no table {table}"),
                "correct the topic's `table` or `watch`",
            ));
            continue;
        };
        let rights = client.query_opt(TABLE, &[&table]).await?;
        if let Some(row) = rights {
            let (select, owner): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
            let quoted = postgres::quote_table(table);
            if !select {
                let what = format!("{table} may not be read");
                let remedy = format!("GRANT SELECT ON {quoted} to the role, for queries");
                findings.push(match reads {
                    true => advice(what, remedy),
                    false => fine(what + " by this role: a producer's need not, a gateway's must"),
                });
            }
            if !owner && !published(table) {
                findings.push(advice(
                    format!("{table} is another role's"),
                    "only its owner may add it to a publication: let the owner make it".into(),
                ));
            }
        }
        findings.push(match stand.identity {
            Identity::Missing => bad(publication::no_identity(table), "see there"),
            Identity::Key if watched.is_conditional(table) => advice(
                format!("{table} tells only the key of old rows, and a topic has a `where`"),
                format!(
                    "ALTER TABLE {} REPLICA IDENTITY FULL: else a row that was never shown may be \
                     told as deleted",
                    postgres::quote_table(table)
                ),
            ),
            Identity::Key | Identity::Full => fine(format!("{table} can be followed")),
        });
    }
    let tables: BTreeSet<String> = watched.tables().map(str::to_owned).collect();
    findings.push(match found {
        None => fine(format!("the publication \"{name}\" will be made")),
        Some(found) if found.ours => fine(format!("the publication \"{name}\" is ours")),
        Some(found) => {
            let missing: Vec<String> = tables.difference(&found.tables).cloned().collect();
            match publication::unfit(name, &found, &tables, &missing) {
                Some(text) => bad(text, "see there"),
                None => fine(format!("the publication \"{name}\" has all tables")),
            }
        }
    });
    Ok(())
}

async fn look_at_slot(
    client: &Client,
    name: &str,
    keep: Option<i64>,
    findings: &mut Vec<Finding>,
) -> Result<(), Refused> {
    let Some(found) = slot::find(client, name).await? else {
        findings.push(fine(format!(
            "the replication slot \"{name}\" will be made"
        )));
        return Ok(());
    };
    if !found.usable {
        findings.push(bad(
            format!("the replication slot \"{name}\" is another's"),
            "name another one",
        ));
        return Ok(());
    }
    if found.wal_status.as_deref() == Some("lost") {
        findings.push(advice(
            format!("the replication slot \"{name}\" is lost"),
            "the producer will make another, and all clients query again".into(),
        ));
        return Ok(());
    }
    let reader = found.active_pid.map_or_else(
        || "nobody".to_owned(),
        |pid| format!("process {pid} of the server"),
    );
    let retained = found.retained.unwrap_or(0);
    let text = format!(
        "the replication slot \"{name}\" is read by {reader} and keeps {} MB of WAL",
        retained >> 20
    );
    findings.push(match keep {
        Some(keep) if retained > keep / 2 => advice(
            text,
            "run a producer soon: it is more than half of max_slot_wal_keep_size".into(),
        ),
        _ => fine(text),
    });
    Ok(())
}

fn has(yes: bool) -> &'static str {
    if yes { "has" } else { "lacks" }
}

fn may(yes: bool) -> &'static str {
    if yes { "may" } else { "may not" }
}

fn fine(what: String) -> Finding {
    Finding {
        grade: Grade::Fine,
        what,
        remedy: None,
    }
}

fn advice(what: String, remedy: String) -> Finding {
    Finding {
        grade: Grade::Advice,
        what,
        remedy: Some(remedy),
    }
}

fn bad(what: String, remedy: &str) -> Finding {
    Finding {
        grade: Grade::Failure,
        what,
        remedy: Some(remedy.into()),
    }
}

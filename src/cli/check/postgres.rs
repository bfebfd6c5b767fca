//! What must be true of a PostgreSQL database.

use super::Finding;
use crate::{
    config::{BusUrl, Config},
    postgres::Address,
    source::postgres::{self as capture, Grade, Watched},
    topic::Topics,
};

/// What is found in the database.
pub async fn findings(config: &Config, address: &Address, topics: &Topics) -> Vec<Finding> {
    let (slot, publication) = (&config.database.slot, &config.database.publication);
    let reads = matches!(config.bus.url, BusUrl::Embedded);
    let watched = Watched::of(topics);
    let found = capture::inspect(address, &watched, slot, publication, reads).await;
    let found = match found {
        Ok(found) => found,
        Err(err) => return vec![unreachable(&err)],
    };
    let told = found.into_iter().map(|finding| {
        let remedy = finding.remedy.unwrap_or_default();
        match finding.grade {
            Grade::Fine => Finding::Fine(finding.what),
            Grade::Advice => Finding::Warning(format!("{}; {remedy}", finding.what)),
            Grade::Failure => Finding::Failure(finding.what, remedy),
        }
    });
    told.collect()
}

/// A database that cannot be asked.
pub fn unreachable(err: &impl std::fmt::Display) -> Finding {
    Finding::Failure(
        format!("database: {err:#}"),
        "see that PostgreSQL runs there, that user, password and pg_hba.conf let us in, and where \
         TLS is asked for, that sslrootcert names the authority of the server's certificate"
            .to_owned(),
    )
}

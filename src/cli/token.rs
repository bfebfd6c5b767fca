//! `rowcast token`: a token for development, signed with the secret of the configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::Exit;
use crate::config::Config;

/// Flags of `rowcast token`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Token {
    /// Who it is for
    #[arg(long)]
    pub sub: String,
    /// A further claim, name=value, the value JSON or a text; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = read_claim)]
    pub claims: Vec<(String, Json)>,
    /// How long it holds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=525_600))]
    pub minutes: u32,
}

/// Prints a token on standard output, alone.
pub fn run(config: &Config, asked: &Token) -> anyhow::Result<Exit> {
    let Some(key) = config.auth_key()? else {
        bail!(
            "the configuration has no secret to sign with; set auth.key to one of at least 32 bytes, \
             such as `openssl rand -base64 48` prints, or auth.key_file to a file with one"
        );
    };
    let claims = claims(config, asked)?;
    let Some(token) = key.sign(&claims) else {
        bail!(
            "the key of the configuration is for {}: it verifies, and only your issuer can sign; for \
             development set auth.key to a secret of at least 32 bytes",
            key.algorithm().as_str()
        );
    };
    println!("{token}");
    Ok(Exit::Fine)
}

fn claims(config: &Config, asked: &Token) -> anyhow::Result<Map<String, Json>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.context("the clock stands before 1970")?.as_secs();
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(|err| anyhow::anyhow!("no randomness: {err}"))?;
    let mut claims = Map::new();
    let auth = &config.auth;
    for (name, value) in [
        ("sub", Some(json!(asked.sub))),
        ("iat", Some(json!(now))),
        ("exp", Some(json!(now + u64::from(asked.minutes) * 60))),
        ("jti", Some(json!(&crate::row::hex(&id)[2..]))),
        ("iss", auth.issuer.as_ref().map(|issuer| json!(issuer))),
        ("aud", auth.audience.first().map(|audience| json!(audience))),
    ] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    }
    claims.extend(asked.claims.iter().cloned());
    Ok(claims)
}

/// `name=value`, the value JSON, or a text.
pub(super) fn read_claim(text: &str) -> Result<(String, Json), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or("a claim is needed such as ward=3 or role=nurse")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

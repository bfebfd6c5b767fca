//! Asking others over HTTP: within a time, for an answer of a bounded size, and never on to where a
//! redirect leads.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Response, redirect::Policy};
use rustls::{ClientConfig, RootCertStore};

use super::{BadAuth, HttpUrl};

/// How long the other side may take, its whole answer included.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It did not come, or not whole.
    #[error("{0}")]
    Failed(String),
    /// It is longer than it may be.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// It came with another status than it should.
    #[error("the answer is a {0}")]
    Status(u16),
    /// It is not what was asked for.
    #[error("{0}")]
    Content(&'static str),
}

/// What asks that address.
///
/// # Errors
/// [`BadAuth::Roots`] where it is `https` and the system trusts nobody.
pub fn client(url: &HttpUrl) -> Result<Client, BadAuth> {
    let builder = Client::builder()
        .redirect(Policy::none())
        // What is asked holds tokens and cookies, and the answer says who somebody is: that is for nobody who
        // happens to stand in the environment.
        .no_proxy()
        .timeout(PATIENCE)
        .user_agent(concat!("rowcast/", env!("CARGO_PKG_VERSION")));
    let builder = match url.is_secure() {
        true => builder.use_preconfigured_tls(tls()?),
        false => builder,
    };
    builder
        .build()
        .map_err(|err| BadAuth::Client(err.to_string()))
}

fn tls() -> Result<ClientConfig, BadAuth> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(BadAuth::Roots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| BadAuth::Client(err.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Reads an answer's body, of at most so many bytes.
///
/// # Errors
/// [`NoAnswer`]
pub async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, NoAnswer> {
    let mut body = Vec::new();
    loop {
        let piece = response.chunk().await;
        match piece.map_err(failed)? {
            Some(piece) if body.len() + piece.len() > most => return Err(NoAnswer::TooLong(most)),
            Some(piece) => body.extend_from_slice(&piece),
            None => return Ok(body),
        }
    }
}

/// What went wrong, without the address, in which there may be secrets.
pub fn failed(err: reqwest::Error) -> NoAnswer {
    let err = err.without_url();
    let causes = std::iter::successors(std::error::Error::source(&err), |cause| cause.source());
    let text = match causes.last() {
        Some(cause) => cause.to_string(),
        None => err.to_string(),
    };
    NoAnswer::Failed(text)
}

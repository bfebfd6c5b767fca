//! TLS for listeners without a proxy before them: one certificate, read again when its files change.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at, at the most: a look is two system calls, by whoever connects.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The one protocol that is spoken here.
const PROTOCOL: &[u8] = b"http/1.1";

/// A certificate and its key. Cloning shares them.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    changed: Changed,
    looked: Instant,
}

/// When both files were last written; none for one that is not there.
type Changed = [Option<SystemTime>; 2];

/// Which of the two files cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {reason}", file.display())]
pub struct TlsError {
    /// The file.
    pub file: PathBuf,
    /// Whether it is the one with the key.
    pub is_key: bool,
    /// What is wrong with it.
    pub reason: String,
}

impl Tls {
    /// Reads a certificate, with those between it and its authority behind it, and its key, both PEM.
    ///
    /// # Errors
    /// [`TlsError`] names the file to look at.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let changed = changed(cert, key);
        let acceptor = acceptor(cert, key)?;
        Ok(Self(Arc::new(Inner {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: Mutex::new(Current {
                acceptor,
                changed,
                looked: Instant::now(),
            }),
        })))
    }

    /// What accepts a connection, with the files as they are now. Such as cannot be used are told in
    /// the log, and the ones before go on: a renewal writes one file after the other.
    pub fn acceptor(&self) -> TlsAcceptor {
        let Inner { cert, key, current } = &*self.0;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_INTERVAL {
            current.looked = Instant::now();
            let changed = changed(cert, key);
            if changed != current.changed {
                current.changed = changed;
                match acceptor(cert, key) {
                    Ok(acceptor) => {
                        current.acceptor = acceptor;
                        tracing::info!(cert = %cert.display(), "the certificate was read again");
                    }
                    Err(err) => {
                        tracing::warn!(error = %err, "the certificate stays the one before: mend the file");
                    }
                }
            }
        }
        current.acceptor.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.cert).finish()
    }
}

fn changed(cert: &Path, key: &Path) -> Changed {
    [cert, key].map(|file| fs::metadata(file).and_then(|data| data.modified()).ok())
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unusable = |is_key, reason: String| TlsError {
        file: if is_key { key } else { cert }.to_owned(),
        is_key,
        reason,
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|err| unusable(false, err.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(false, "there is no certificate in it".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|err| {
        let none = matches!(err, rustls::pki_types::pem::Error::NoItemsFound);
        let reason = match none {
            true => "there is no key in it, or one with a passphrase".into(),
            false => err.to_string(),
        };
        unusable(true, reason)
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| unusable(false, err.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|err| match err {
            rustls::Error::InconsistentKeys(_) => {
                unusable(true, "it is the key of another certificate".into())
            }
            rustls::Error::InvalidCertificate(_) => unusable(false, err.to_string()),
            err => unusable(true, err.to_string()),
        })?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

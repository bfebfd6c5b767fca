//! TLS as libpq's `sslmode` means it, made of rustls.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Address, TlsMode};

/// Where systems keep the authorities they trust, in one file.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why no connection can be secured as asked.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not what it should be.
    #[error("{} cannot be used: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system trusts nobody.
    #[error("the system has no trusted certificates; name a file with sslrootcert")]
    NoRoots,
    /// The certificates do not make a configuration.
    #[error("the certificates cannot be used: {0}")]
    Certificates(#[source] rustls::Error),
}

/// What makes an address's connections secure. For [`TlsMode::Disable`] it is never asked.
///
/// Files are read now: one that was replaced is seen by the next connector only.
///
/// # Errors
/// [`TlsError`] names the file to look at.
pub fn connector(address: &Address) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match address.tls() {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => {
            Arc::new(Anybody(provider.clone()))
        }
        TlsMode::VerifyCa => Arc::new(AnyHost(authorities(address, provider.clone())?)),
        TlsMode::VerifyFull => authorities(address, provider.clone())?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificates)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match address.client_cert() {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let own = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|err| unusable(key, &err))?;
            builder
                .with_client_auth_cert(own, key)
                .map_err(TlsError::Certificates)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// The file of the authorities that an address trusts: its own, or the system's, for who can read
/// them from a file only.
pub fn root_file(address: &Address) -> Option<PathBuf> {
    let system = || {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let usual = SYSTEM_ROOTS.iter().map(PathBuf::from);
        named.into_iter().chain(usual).find(|file| file.is_file())
    };
    address.root_cert().cloned().or_else(system)
}

fn authorities(
    address: &Address,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    match address.root_cert() {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|err| unusable(file, &err))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|err| TlsError::Certificates(rustls::Error::General(err.to_string())))
}

fn certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).map_err(|err| unusable(file, &err))?;
    let found: Vec<_> = found
        .collect::<Result<_, _>>()
        .map_err(|err| unusable(file, &err))?;
    match found.is_empty() {
        true => Err(unusable(file, &"there is no certificate in it")),
        false => Ok(found),
    }
}

fn unusable(file: &std::path::Path, reason: &impl ToString) -> TlsError {
    TlsError::File {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

/// Encrypts, and asks nobody's name.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks for a trusted authority, but not for the host's name.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The chain is judged before the name, so that a wrong name is all that is wrong.
        match self.0.verify_server_cert(cert, between, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

//! Keys that verify tokens. What kind a key is decides, once, with which algorithm: a token that names
//! another one is not tried on it.

use std::{fmt, sync::Arc};

use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value as Json};

use super::{algorithm::Algorithm, published};

/// The least bytes of a secret (RFC 7518 §3.2): a shorter one can be guessed from one token.
const MIN_SECRET_BYTES: usize = 32;

/// The letters with which every key in the PEM form begins.
const PEM: &str = "-----BEGIN ";

/// Bytes of a point on P-256, uncompressed.
const P256_BYTES: usize = 65;

/// A key, and the one algorithm that it is for. Cloning shares it.
#[derive(Clone)]
pub struct Key(Arc<Inner>);

struct Inner {
    algorithm: Algorithm,
    decoding: DecodingKey,
    /// That only the signature is judged by the library, with this algorithm.
    validation: Validation,
    /// What signs, where the same key does.
    encoding: Option<EncodingKey>,
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It can be guessed.
    #[error("a secret has at least 32 bytes; `openssl rand -base64 48` makes one")]
    Short,
    /// It is a public key, and not one of the kinds in the PEM form.
    #[error(
        "a PUBLIC KEY in PEM is needed: RSA, EC on P-256, or Ed25519; `openssl pkey -pubin` and \
         `ssh-keygen -e -m pkcs8` print one in that form"
    )]
    Pem,
    /// There is something else beside the PEM.
    #[error(
        "there is something else beside the PUBLIC KEY; keep its lines alone, from -----BEGIN to -----END"
    )]
    Beside,
    /// It is what the issuer keeps to himself.
    #[error("this is a private key, which belongs to the issuer alone; give its public key")]
    Private,
}

/// What became of a token on one key.
pub enum Tried {
    /// The key has signed it, and this is what it says.
    Signed(Map<String, Json>),
    /// Some other key has.
    Other,
    /// The key has signed what is no claims.
    Malformed,
}

impl Key {
    /// Reads a public key in the PEM form, or takes the text for a secret. A PEM is never a secret: else
    /// who knows a public key could sign.
    ///
    /// # Errors
    /// [`BadKey`], for who configures.
    pub fn from_text(text: &str) -> Result<Self, BadKey> {
        // Editors put a mark of the byte order first.
        let text = text.trim_start_matches('\u{feff}').trim();
        if !published::has_armour(text) {
            return Self::from_secret(text);
        }
        if text.contains("PRIVATE KEY") {
            return Err(BadKey::Private);
        }
        if !text.starts_with(PEM) {
            return Err(BadKey::Beside);
        }
        let pem = text.as_bytes();
        let point = |key: &DecodingKey| {
            let bytes = key.try_get_as_bytes();
            bytes.is_ok_and(|point| point.len() == P256_BYTES)
        };
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            Ok(Self::new(Algorithm::Rs256, key, None))
        } else if let Some(key) = DecodingKey::from_ec_pem(pem).ok().filter(point) {
            Ok(Self::new(Algorithm::Es256, key, None))
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            Ok(Self::new(Algorithm::EdDsa, key, None))
        } else {
            Err(BadKey::Pem)
        }
    }

    fn from_secret(text: &str) -> Result<Self, BadKey> {
        if published::is_public(text) {
            return Err(BadKey::Pem);
        }
        if text.len() < MIN_SECRET_BYTES {
            return Err(BadKey::Short);
        }
        let secret = text.as_bytes();
        let (decoding, encoding) = (
            DecodingKey::from_secret(secret),
            EncodingKey::from_secret(secret),
        );
        Ok(Self::new(Algorithm::Hs256, decoding, Some(encoding)))
    }

    /// A public key of a JWK set (RFC 7517); `None` for one of another kind or for another purpose, and for
    /// a secret, which nobody publishes in good faith.
    pub(super) fn from_jwk(jwk: &Json) -> Option<Self> {
        let text = |name| jwk.get(name).and_then(Json::as_str);
        let (algorithm, key) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let key = DecodingKey::from_rsa_components(text("n")?, text("e")?);
                (Algorithm::Rs256, key.ok()?)
            }
            ("EC", Some("P-256")) => {
                let key = DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?;
                let whole = key.try_get_as_bytes().ok()?.len() == P256_BYTES;
                whole.then_some((Algorithm::Es256, key))?
            }
            ("OKP", Some("Ed25519")) => {
                let key = DecodingKey::from_ed_components(text("x")?);
                (Algorithm::EdDsa, key.ok()?)
            }
            _ => return None,
        };
        // The key's owner says what it is for (RFC 7517 §4.2, §4.3).
        let verifies = jwk.get("key_ops").is_none_or(|all| {
            let mut all = all.as_array().into_iter().flatten();
            all.any(|one| one == "verify")
        });
        let named = text("alg").is_none_or(|alg| alg == algorithm.as_str());
        let signs = text("use").is_none_or(|purpose| purpose == "sig");
        (named && signs && verifies).then(|| Self::new(algorithm, key, None))
    }

    fn new(algorithm: Algorithm, decoding: DecodingKey, encoding: Option<EncodingKey>) -> Self {
        let mut validation = Validation::new(algorithm.inner());
        // What a token claims is judged in one place of ours, by rules that we know.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        Self(Arc::new(Inner {
            algorithm,
            decoding,
            validation,
            encoding,
        }))
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Tries a token on this key.
    pub(super) fn try_on(&self, token: &str) -> Tried {
        use jsonwebtoken::errors::ErrorKind;
        let key = &*self.0;
        match jsonwebtoken::decode::<Map<String, Json>>(token, &key.decoding, &key.validation) {
            Ok(signed) => Tried::Signed(signed.claims),
            // A signature of the wrong length is one by another key, too.
            Err(err) => match err.kind() {
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => Tried::Malformed,
                _ => Tried::Other,
            },
        }
    }

    /// Signs these claims; `None` where this key can only verify.
    pub fn sign(&self, claims: &Map<String, Json>) -> Option<String> {
        let encoding = self.0.encoding.as_ref()?;
        let header = Header::new(self.0.algorithm.inner());
        jsonwebtoken::encode(&header, claims, encoding).ok()
    }
}

/// A key is a secret, or as good as one.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.algorithm.as_str())
    }
}

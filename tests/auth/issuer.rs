//! Who issues tokens: keys of every kind, made for this run, and what is signed with them.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock, time::SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value as Json, json};

/// The secret of the gateways under test.
pub const SECRET: &str = "a secret of the tests, of more than 32 bytes";

/// A pair of keys.
pub struct Pair {
    pub algorithm: Algorithm,
    private: Vec<u8>,
    /// The public key in PEM.
    pub public: String,
    /// The same for a JWK set, without a name.
    pub jwk: Json,
}

/// The seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Signs with the secret.
pub fn hs256(claims: &Json) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// base64url, without padding.
pub fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for place in 0..=chunk.len() {
            let letter = (bits >> (18 - 6 * place)) & 63;
            text.push(char::from(LETTERS[letter as usize]));
        }
    }
    text
}

/// A token put together by hand: header and claims as they are, and a signature.
pub fn by_hand(header: &Json, claims: &Json, signature: &[u8]) -> String {
    let part = |json: &Json| base64url(json.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), base64url(signature))
}

impl Pair {
    pub fn rsa() -> &'static Self {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Self::new(Algorithm::RS256, &["RSA", "rsa_keygen_bits:2048"]))
    }

    pub fn ec() -> &'static Self {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Self::new(Algorithm::ES256, &["EC", "ec_paramgen_curve:P-256"]))
    }

    pub fn ed() -> &'static Self {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Self::new(Algorithm::EdDSA, &["ED25519"]))
    }

    /// One more, of nobody that a gateway trusts.
    pub fn stranger() -> &'static Self {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| Self::new(Algorithm::EdDSA, &["ED25519"]))
    }

    fn new(algorithm: Algorithm, kind: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let openssl = |args: &[&str]| {
            let made = Command::new("openssl")
                .current_dir(folder.path())
                .args(args)
                .output();
            let made = made.expect("openssl is missing: apt-get install -y openssl");
            assert!(made.status.success(), "{made:?}");
            made.stdout
        };
        let mut make = vec!["genpkey", "-out", "key.pem", "-algorithm", kind[0]];
        for option in &kind[1..] {
            make.extend(["-pkeyopt", option]);
        }
        openssl(&make);
        openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
        let der = openssl(&["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"]);
        let jwk = match algorithm {
            Algorithm::RS256 => {
                let text = openssl(&["rsa", "-in", "key.pem", "-noout", "-modulus"]);
                let text = String::from_utf8(text).unwrap();
                let digits = text.trim().strip_prefix("Modulus=").unwrap().as_bytes();
                let byte = |pair: &[u8]| {
                    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                };
                let modulus: Vec<u8> = digits.chunks(2).map(byte).collect();
                json!({ "kty": "RSA", "n": base64url(&modulus), "e": "AQAB", "use": "sig" })
            }
            Algorithm::ES256 => {
                let (x, y) = der[der.len() - 64..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y) })
            }
            _ => {
                let x = base64url(&der[der.len() - 32..]);
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA" })
            }
        };
        Self {
            algorithm,
            private: fs::read(path("key.pem")).unwrap(),
            public: fs::read_to_string(path("public.pem")).unwrap(),
            jwk,
        }
    }

    /// Signs; the key is named `kid`, where it is named.
    pub fn sign(&self, kid: Option<&str>, claims: &Json) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        self.sign_with(&header, claims)
    }

    /// Signs under a header of one's own.
    pub fn sign_with(&self, header: &Header, claims: &Json) -> String {
        let key = match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&self.private),
            Algorithm::ES256 => EncodingKey::from_ec_pem(&self.private),
            _ => EncodingKey::from_ed_pem(&self.private),
        };
        encode(header, claims, &key.unwrap()).unwrap()
    }

    /// The key for a JWK set, under a name.
    pub fn named(&self, kid: &str) -> Json {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = kid.into();
        jwk
    }
}

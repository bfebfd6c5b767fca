//! What is published and no secret, in the forms that are mistaken for one: keys in base64, keys of SSH, JSON.
//! As a secret each would be one that everybody knows, and everybody could sign.

use crate::row::unbase64;

/// The first line of everything in the PEM form, and of RFC 4716's, as far as it is alike.
const ARMOUR: [&str; 2] = ["-----BEGIN", "---- BEGIN"];

/// The names of SSH's kinds of keys begin so.
const SSH: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];

/// DER: a sequence, a sequence's identifier, an integer.
const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const INTEGER: u8 = 0x02;

/// Whether there is a key or a certificate in PEM anywhere in a text.
pub fn has_armour(text: &str) -> bool {
    ARMOUR.iter().any(|line| text.contains(line))
}

/// Whether a text, or a word of it, is a public key in some form. A secret that was made at random is none, but
/// once in a million times, and then another one is made.
pub fn is_public(text: &str) -> bool {
    let whole: String = text.split_whitespace().collect();
    let mut words = text.split_whitespace().chain([&*whole]);
    text.starts_with('{') || text.contains("\"kty\"") || words.any(is_key)
}

fn is_key(word: &str) -> bool {
    if SSH.iter().any(|name| word.starts_with(name)) {
        return true;
    }
    let (base64, hex) = (unbase64(word), hex(word));
    let bytes = || [&base64, &hex].into_iter().flatten();
    bytes().any(|bytes| is_der(bytes) || is_ssh(bytes))
}

/// Whether bytes begin as a public key in DER: `SubjectPublicKeyInfo` (RFC 5280), `RSAPublicKey` (RFC 8017),
/// or a certificate. The first is two sequences, and then the identifier of what kind it is.
fn is_der(bytes: &[u8]) -> bool {
    let Some((length, inner)) = begun(bytes, SEQUENCE) else {
        return false;
    };
    let is_large = length >= 0x80;
    match inner.first() {
        Some(&SEQUENCE) => match begun(inner, SEQUENCE) {
            Some((_, kind)) => is_large || kind.first() == Some(&OBJECT_ID),
            None => false,
        },
        Some(&INTEGER) => is_large || length == inner.len(),
        _ => false,
    }
}

/// The length of a value with that tag, and what follows it.
fn begun(bytes: &[u8], tag: u8) -> Option<(usize, &[u8])> {
    match bytes {
        [first, length @ 0..=0x7f, rest @ ..] if *first == tag => {
            Some((usize::from(*length), rest))
        }
        [first, 0x81, length, rest @ ..] if *first == tag => Some((usize::from(*length), rest)),
        [first, 0x82, high, low, rest @ ..] if *first == tag => {
            Some((usize::from(u16::from_be_bytes([*high, *low])), rest))
        }
        _ => None,
    }
}

/// Whether bytes begin as a public key of SSH's: the length of its kind's name, and that (RFC 4253 §6.6).
fn is_ssh(bytes: &[u8]) -> bool {
    let name = bytes.get(4..).unwrap_or_default();
    bytes.starts_with(&[0, 0, 0]) && SSH.iter().any(|begin| name.starts_with(begin.as_bytes()))
}

/// What a text is in hexadecimal digits, with colons between the bytes or without.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8);
    Some(digits.chunks(2).map(byte).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_known_in_every_form() {
        for text in [
            // RSA of 1024 bits; P-256, P-384, P-521; Ed25519, X25519; RSA's own form.
            "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC0",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE",
            "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQA",
            "MCowBQYDK2VwAyEA",
            "MCowBQYDK2VuAyEA",
            "MIGJAoGBALR",
            "MIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq",
            // A certificate.
            "MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkq",
            // In lines, after a comment, in hexadecimal digits.
            "# of the issuer\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\nAAAA\n",
            "MFkwEwYHKoZI\nzj0CAQYIKoZI\nzj0DAQcDQgAE",
            "3059301306072a8648ce3d020106082a8648ce3d030107034200",
            "30:59:30:13:06:07:2a:86:48:ce:3d:02:01",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me@host",
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY me@host",
            "sk-ssh-ed25519@openssh.com AAAA",
            "no-pty ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB",
            "AAAAB3NzaC1yc2EAAAADAQABAAABgQ",
            "AAAAC3NzaC1lZDI1NTE5AAAAIA",
            "{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}",
            "the key: {\"kty\": \"RSA\"}",
        ] {
            assert!(is_public(text), "{text}");
        }
        assert!(has_armour("Modulus: 00\n-----BEGIN PUBLIC KEY-----\n"));
        assert!(has_armour("---- BEGIN SSH2 PUBLIC KEY ----"));
    }

    #[test]
    fn a_secret_is_none() {
        for text in [
            "a secret of the tests, of more than 32 bytes",
            "correct-horse-battery-staple-correct-horse",
            "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=",
            "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
            "MySecretMySecretMySecretMySecretMySecret",
            "0123456789abcdef0123456789abcdef0123456789abcdef",
            "pässwörter sind geheim, auch die langen davon",
        ] {
            assert!(!is_public(text) && !has_armour(text), "{text}");
        }
        // As `openssl rand -base64 48` makes them: one in 20,000 begins as a sequence does.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut taken = 0;
        for _ in 0..20_000 {
            let secret: String = (0..64)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let letters =
                        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                    char::from(letters[(state >> 58) as usize])
                })
                .collect();
            taken += usize::from(is_public(&secret));
        }
        assert!(taken <= 1, "{taken} of 20,000");
    }
}

//! `[auth]`, from a file and from the environment.

use super::*;

#[test]
fn who_may_connect_can_be_said_in_the_environment_and_is_never_shown() {
    let secret = "12345678901234567890123456789012";
    let variables = [
        ("ROWCAST__AUTH__KEY", secret),
        ("ROWCAST__AUTH__LEEWAY_MS", "1000"),
        ("ROWCAST__AUTH__AUDIENCE", "a, b"),
        ("ROWCAST__AUTH__ANONYMOUS", "true"),
    ];
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let file = format!(
        "[auth]\ntokens = [{{ sha256 = \"{hash}\", claims = {{ Ward = 3, sub = \"a\" }} }}]\n\
         operator = {{ Role = \"admin\" }}"
    );
    let config = load_from(Some((FILE, &file)), &variables, &Overrides::default()).unwrap();
    let auth = &config.auth;
    assert!(auth.judges() && auth.anonymous);
    assert_eq!(auth.leeway, Duration::from_secs(1));
    assert_eq!(auth.audience, ["a", "b"]);
    assert_eq!(auth.tokens[0].claims["Ward"], 3);
    assert_eq!(auth.operator["Role"], "admin");
    let settings = config.auth_settings(false).unwrap();
    assert_eq!(settings.algorithms, [crate::auth::Algorithm::Hs256]);
    for shown in [format!("{config:?}"), format!("{settings:?}")] {
        assert!(!shown.contains(secret) && !shown.contains(hash), "{shown}");
    }
}

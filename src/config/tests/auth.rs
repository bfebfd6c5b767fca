//! `[auth]`, from a file and from the environment.

use super::*;

#[test]
fn answers_are_kept_for_a_moment_at_the_most_and_only_where_somebody_is_asked() {
    let read = |lines: &str| {
        let file = format!("[auth]\n{lines}");
        load_from(Some((FILE, &file)), &[], &Overrides::default())
    };
    let url = "forward_url = \"http://127.0.0.1:8000/who/\"\n";
    let config = read(&format!("{url}forward_cache_ms = 5000")).unwrap();
    let settings = config.auth_settings().unwrap();
    assert_eq!(settings.forward_cache, Duration::from_secs(5));
    assert!(read(url).unwrap().auth.forward_cache.is_zero());
    for wrong in [
        &format!("{url}forward_cache_ms = 60001"),
        "forward_cache_ms = 5000",
    ] {
        let refused = read(wrong).unwrap_err().to_string();
        assert!(refused.contains("auth.forward_cache_ms"), "{refused}");
    }
}

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
    let settings = config.auth_settings().unwrap();
    assert_eq!(settings.algorithms, [crate::auth::Algorithm::Hs256]);
    for shown in [format!("{config:?}"), format!("{settings:?}")] {
        assert!(!shown.contains(secret) && !shown.contains(hash), "{shown}");
    }
}

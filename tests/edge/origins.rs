//! Which pages may open a socket, and write: origins as browsers send them, as nobody sends them, and as
//! somebody sends them who wants to be taken for another.

use super::{Answer, handshake, open, say, tuned};

/// The name under which the server is asked.
const HOST: &str = "care.example:8888";

/// What the server is told to admit, in parts.
const LISTED: [(&str, &str, &str); 5] = [
    ("https", "good.example", ""),
    ("http", "good.example", ":8080"),
    ("https", "xn--bcher-kva.example", ""),
    ("https", "[2001:db8::7]", ":8443"),
    ("http", "192.0.2.7", ""),
];

/// The values of a page's `Origin` lines, none for no line; and whether it may come in.
type Case = (Vec<Vec<u8>>, bool);

fn one(text: impl AsRef<[u8]>, admitted: bool) -> Case {
    (vec![text.as_ref().to_vec()], admitted)
}

/// What becomes of an origin that is admitted when it is written in other ways.
fn variants((scheme, host, port): (&str, &str, &str)) -> Vec<Case> {
    let right = format!("{scheme}://{host}{port}");
    let other = if scheme == "https" { "http" } else { "https" };
    let usual = if scheme == "https" { 443 } else { 80 };
    let foreign = |text: String| one(text, false);
    let mut cases = vec![
        one(&right, true),
        foreign(format!("{scheme}://{host}.evil.example{port}")),
        foreign(format!("{scheme}://{host}evil.example{port}")),
        foreign(format!("{scheme}://evil{host}{port}")),
        foreign(format!("{scheme}://evil.{host}{port}")),
        foreign(format!("{scheme}://evil.example/{host}{port}")),
        foreign(format!("{scheme}://evil.example#{right}")),
        foreign(format!("{scheme}://evil.example?{right}")),
        foreign(format!("{scheme}://evil.example\\@{host}{port}")),
        foreign(format!("{other}://{host}{port}")),
        foreign(format!("ws://{host}{port}")),
        foreign(format!("{scheme}s://{host}{port}")),
        foreign(format!("{scheme}:/{host}{port}")),
        foreign(format!("{scheme}:{host}{port}")),
        foreign(format!("//{host}{port}")),
        foreign(format!("{host}{port}")),
        foreign(format!("{scheme}://{host}:9")),
        foreign(format!("{scheme}://{host}:{usual}")),
        foreign(format!("{scheme}://{host}{port}:1")),
        foreign(format!("{scheme}://{host}:")),
        foreign(format!("{scheme}://{host}:0")),
        foreign(format!("{scheme}://{host}:+80")),
        foreign(format!("{scheme}://{host}:65616")),
        foreign(format!("{scheme}://user@{host}{port}")),
        foreign(format!("{scheme}://user:secret@{host}{port}")),
        foreign(format!("{scheme}://{host}{port}@evil.example")),
        foreign(format!("{scheme}://{host}.{port}")),
        foreign(format!("{right}/")),
        foreign(format!("{right}/path")),
        foreign(format!("{right}?")),
        foreign(format!("{right}#")),
        foreign(format!("{right}, {right}")),
        foreign(format!("{right} {right}")),
        foreign(format!("{right},https://evil.example")),
        foreign(format!("null, {right}")),
        foreign(format!("{right}\t.evil.example")),
        foreign(format!("\"{right}\"")),
        foreign(right.to_ascii_uppercase()),
        foreign(right.replace(scheme, &scheme.to_ascii_uppercase())),
        foreign(right.replace('.', "%2e").replace('[', "%5b")),
        foreign(right.replace("example", "exаmple")),
        foreign(
            right
                .replace("2001", "2001:0")
                .replace("example", "xn--exmple-4nf"),
        ),
        (vec![right.clone().into(), right.clone().into()], false),
        (
            vec![right.clone().into(), "https://evil.example".into()],
            false,
        ),
        (vec!["https://evil.example".into(), right.into()], false),
    ];
    // What a change leaves as it was is no variant.
    let right = cases[0].0.clone();
    cases.retain(|(lines, admitted)| *admitted || *lines != right);
    cases
}

/// Origins that are nobody's.
fn strangers() -> Vec<Case> {
    let mut cases = vec![(Vec::new(), true), one(b"https://good.example\xff", false)];
    let texts = [
        "",
        "null",
        "NULL",
        "*",
        "none",
        "undefined",
        "file://",
        "about:blank",
        "data:",
        "blob:https://good.example",
        "javascript:alert(1)",
        "chrome-extension://abcdef",
        "http://",
        "https://",
        "://",
        "http:///",
        "https://.",
        "https://*",
        "https://*.example",
        "https://localhost",
        "http://localhost:8888",
        "http://127.0.0.1:8888",
        "http://[::1]:8888",
        "http://0.0.0.0:8888",
        "http://0:8888",
        "http://2130706433",
        "http://0x7f.1",
        "http://127.1",
        "https://evil.example",
        "https://good.example.",
        "https://bücher.example",
        "https://[2001:db8:0::7]:8443",
        "https://2001:db8::7:8443",
        "https://[2001:db8::7%25eth0]:8443",
        "https://[2001:db8::7]evil:8443",
        "http://192.0.2.7.evil.example",
        "http://3221225991",
        "http://192.0.519",
    ];
    cases.extend(texts.map(|text| one(text, false)));
    cases
}

fn told(answer: &Answer) -> (u16, Option<u16>) {
    (answer.status, answer.close_code())
}

#[tokio::test]
async fn only_the_same_host_and_listed_origins_come_in_whatever_others_look_like() {
    let listed = LISTED.map(|(scheme, host, port)| format!("\"{scheme}://{host}{port}\""));
    let server = open(&format!(
        "allowed_hosts = [\"care.example\"]\nallowed_origins = [{}]",
        listed.join(", ")
    ));
    let own = [
        ("http", "care.example", ":8888"),
        ("https", "care.example", ":8888"),
    ];
    let mut cases: Vec<Case> = LISTED.into_iter().flat_map(variants).collect();
    let schemes = |lines: &[Vec<u8>]| {
        let text = String::from_utf8_lossy(&lines[0]).into_owned();
        own.iter()
            .any(|(scheme, host, port)| text == format!("{scheme}://{host}{port}"))
    };
    // A plain listener does not know what stands before it: the same host is that under both schemes.
    cases.extend(own.into_iter().flat_map(variants).map(|(lines, admitted)| {
        let same = lines.len() == 1 && schemes(&lines);
        (lines, admitted || same)
    }));
    cases.extend(strangers());
    assert!(cases.len() >= 300, "{} cases", cases.len());
    for (lines, admitted) in &cases {
        let mut headers = format!("Host: {HOST}\r\n").into_bytes();
        for line in lines {
            headers.extend(b"Origin: ");
            headers.extend(line);
            headers.extend(b"\r\n");
        }
        let shown = String::from_utf8_lossy(&headers).into_owned();
        let bytes = |template: Vec<u8>| {
            let text = String::from_utf8(template).unwrap();
            let (before, after) = text.split_once("HEADERS").unwrap();
            [before.as_bytes(), &headers, after.as_bytes()].concat()
        };
        for path in ["/socket/all/", "/chat/socket/"] {
            let answer = say(server.address(), &bytes(handshake(path, "HEADERS"))).await;
            match admitted {
                true => assert_eq!(told(&answer), (101, None), "{path}\n{shown}"),
                false => assert!(
                    [(101, Some(4403)), (400, None)].contains(&told(&answer)),
                    "{path}\n{shown}{:?}",
                    told(&answer)
                ),
            }
        }
        let write = "POST /api/topics/board/refresh HTTP/1.1\r\nHEADERSContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = say(server.address(), &bytes(write.into())).await;
        let expected: &[u16] = if *admitted { &[202] } else { &[403, 400] };
        assert!(
            expected.contains(&answer.status),
            "{}\n{shown}",
            answer.head
        );
        let read = "GET /api/topics HTTP/1.1\r\nHEADERSConnection: close\r\n\r\n";
        let answer = say(server.address(), &bytes(read.into())).await;
        let readable = answer.header("access-control-allow-origin");
        let expected = lines.first().filter(|_| *admitted);
        let expected = expected.map(|line| String::from_utf8_lossy(line).into_owned());
        assert_eq!(readable, expected, "{shown}");
        let stream = "GET /api/stream HTTP/1.0\r\nHEADERS\r\n";
        if !admitted {
            let answer = say(server.address(), &bytes(stream.into())).await;
            assert!(
                [403, 400].contains(&answer.status),
                "{}\n{shown}",
                answer.head
            );
        }
    }
}

#[tokio::test]
async fn a_usual_port_may_be_written_in_host_and_counts_for_its_scheme_alone() {
    let server = open("allowed_hosts = [\"*\"]");
    for (host, origin, admitted) in [
        ("care.example:443", "https://care.example", true),
        ("care.example:80", "http://care.example", true),
        ("care.example:443", "http://care.example", false),
        ("care.example:80", "https://care.example", false),
        ("CARE.example", "https://care.example", true),
        ("care.example", "https://care.example:8443", false),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443", true),
        ("[2001:db8::1]", "https://[2001:db8::2]", false),
        ("user@care.example", "https://care.example", false),
    ] {
        let headers = format!("Host: {host}\r\nOrigin: {origin}\r\n");
        let answer = say(server.address(), &handshake("/socket/all/", &headers)).await;
        let expected = (!admitted).then_some(4403);
        assert_eq!(told(&answer), (101, expected), "{headers}");
    }
}

#[tokio::test]
async fn a_loopback_listener_admits_pages_of_this_machine_and_of_nobody_who_sounds_like_it() {
    let server = tuned("");
    for (origin, admitted) in [
        ("http://localhost:5173", true),
        ("https://localhost", true),
        ("http://127.0.0.1:1", true),
        ("http://127.8.8.8", true),
        ("http://[::1]:3000", true),
        ("http://localhost.evil.example", false),
        ("http://evil.localhost.example", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://127.1", false),
        ("http://2130706433", false),
        ("http://0.0.0.0:8888", false),
        ("http://[::ffff:7f00:1]", false),
        ("http://localhost@evil.example", false),
        ("file://localhost", false),
    ] {
        let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n");
        let answer = say(server.address(), &handshake("/socket/all/", &headers)).await;
        let expected = (!admitted).then_some(4403);
        assert_eq!(told(&answer), (101, expected), "{origin}");
    }
}

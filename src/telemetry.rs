//! Logs: to standard error, for operators; never payloads or tokens.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    borrow::Cow,
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, masked};

/// The most characters of a panic's message that are logged.
const PANIC_CHARS: usize = 200;

/// Starts logging as configured; from then on panics are log lines, too. Call it once.
pub fn start(log: &Log) {
    // The libraries tell every reconnection in their own words; ours are said once.
    let quiet = "async_nats=off,pgwire_replication=off";
    let filter = EnvFilter::new(format!("{quiet},{}", log.level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines(io::stderr()))
        .with_ansi(io::stderr().is_terminal());
    // Only a second call could fail, and then logging goes on as it is.
    let _ = match log.format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    panic::set_hook(Box::new(panicked));
}

/// Standard error, line by line and without what looks like a password.
struct Lines(io::Stderr);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = on_one_line(&text);
        self.0.write_all(masked(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An event is one line, whatever stands in it: who could have another line begin could tell the operator
/// anything. Colours stay; the subscriber lets none through that are not its own.
fn on_one_line(event: &str) -> Cow<'_, str> {
    let (text, end) = match event.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (event, ""),
    };
    let breaks = |c: char| (c.is_control() && c != '\x1b') || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return Cow::Borrowed(event);
    }
    let mut out = String::with_capacity(event.len() + 16);
    for c in text.chars() {
        match breaks(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.push_str(end);
    Cow::Owned(out)
}

fn panicked(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let why = without_data(text.unwrap_or_default());
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at, why, "panicked");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        // Who asked for it by RUST_BACKTRACE reads it; in it are names of functions alone.
        let _ = writeln!(io::stderr(), "{trace}");
    }
}

/// What a panic says without what it says it of: the text that was cut between two bytes of a character,
/// the two values that were not equal.
fn without_data(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let ends = ["\"", "inside '", " of `", "slicing `"].map(|begin| line.find(begin));
    let end = ends.into_iter().flatten().min().unwrap_or(line.len());
    line[..end].chars().take(PANIC_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_in_an_event_begins_a_line_of_its_own() {
        let plain = "\x1b[2m2026-11-29\x1b[0m WARN down error=\"é\"\n";
        assert_eq!(on_one_line(plain), plain);
        let forged = "WARN down error=\"a\n2026-11-29 INFO all is well\r\u{85}\u{2028}\t\"\n";
        let told = on_one_line(forged);
        assert_eq!(
            told,
            "WARN down error=\"a\\n2026-11-29 INFO all is well\\r\\u{85}\\u{2028}\\t\"\n"
        );
        assert_eq!(on_one_line("a\nb"), "a\\nb");
    }

    #[test]
    fn a_panic_is_told_without_the_text_that_it_is_about() {
        let provoked = |fails: fn(&str)| {
            let payload = panic::catch_unwind(|| fails("kanarie é")).unwrap_err();
            let text = payload.downcast_ref::<String>().unwrap();
            assert!(text.contains("kanarie"), "{text}");
            without_data(text)
        };
        let told = [
            provoked(|text| drop(text[..9].to_owned())),
            provoked(|text| drop(text[..90].to_owned())),
            provoked(|text| drop(text[text.len() - 4..2].to_owned())),
            provoked(|text| assert_eq!(text, "other")),
            provoked(|text| assert_eq!(text.parse::<u8>().map_err(|_| text).expect("a number"), 1)),
        ];
        for text in told {
            assert!(!text.contains("kanarie") && text.len() > 5, "{text}");
        }
        assert_eq!(
            without_data("index out of bounds: 3"),
            "index out of bounds: 3"
        );
        assert_eq!(without_data(&"x".repeat(999)).len(), PANIC_CHARS);
    }
}

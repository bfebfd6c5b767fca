//! The last that a connection is told which is not served any further: in a way that it can read,
//! and at a bounded cost.

use std::time::Duration;

use axum::{
    http::{StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{answer::Refused, crumbs::PAUSE};
use crate::protocol::{ErrorCode, Failure, Language};

/// How long a client may take to close its side.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that are read of what a client still sends.
const MOST_READ: usize = 256 * 1024;

/// When there may be room again.
pub const RETRY_MS: u32 = 5000;

/// What is told to a client whose request did not come in time (RFC 9110 §15.5.9).
pub const LATE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What is told to a client whose request could be read in two ways.
pub const AMBIGUOUS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// There is no room, and when there may be.
pub fn no_room() -> Failure {
    Failure {
        retry_after_ms: Some(RETRY_MS),
        ..ErrorCode::Overloaded.into()
    }
}

/// The whole response to a client for which there is no room.
pub fn full(language: Language) -> Bytes {
    let refused = Refused {
        failure: no_room(),
        language,
    };
    let body = refused.body().to_string();
    let response = refused.into_response();
    let mut text = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n",
        StatusCode::SERVICE_UNAVAILABLE,
        body.len()
    );
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            let value = String::from_utf8_lossy(value.as_bytes());
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    format!("{text}\r\n{body}").into()
}

/// Says this, and closes.
pub async fn tell(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &[u8]) {
    // So little fits into the kernel's buffer of a new connection; if not, nobody reads it.
    if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, stream.write_all(text)).await {
        close(&mut stream).await;
    }
}

/// Closes a connection so that what was written arrives: to close while the client still sends would
/// reset it, and take the answer away.
pub async fn close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let reading = async {
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        let mut read = 0;
        while read < MOST_READ {
            match stream.read(&mut scratch).await? {
                0 => break,
                more => {
                    read += more;
                    // Who goes on byte by byte must not have a core for it.
                    if more < scratch.len() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(PATIENCE, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_is_told_when_to_come_back() {
        let text = String::from_utf8(full(Language::En).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{head}"
        );
        for line in [
            "retry-after: 5".to_owned(),
            "connection: close".into(),
            format!("content-length: {}", body.len()),
        ] {
            assert_eq!(head.lines().filter(|is| *is == line).count(), 1, "{head}");
        }
        assert!(body.contains("\"error\":\"overloaded\""), "{body}");
    }
}

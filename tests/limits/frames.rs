//! Messages in many frames, large ones, and what is only announced.

use super::{PATHS, counted, limited};
use crate::{
    support::{
        Raw, Server,
        frames::{CONTINUATION, FIN, Form, PING, TEXT, frame, header},
        wait_until,
    },
    wire::care,
};

/// A request of so many bytes in so many frames.
fn pieces(bytes: usize, frames: usize) -> Vec<u8> {
    let start = r#"{"type":"sys:ping","pad":{"a":["#;
    let end = "1]}}";
    let filling = bytes - start.len() - end.len();
    let text = format!("{start}{}{end}", " ".repeat(filling)).into_bytes();
    assert_eq!(text.len(), bytes);
    let mut sent = Vec::new();
    for n in 0..frames {
        let piece = &text[n * bytes / frames..(n + 1) * bytes / frames];
        let opcode = if n == 0 { TEXT } else { CONTINUATION };
        let fin = if n + 1 == frames { FIN } else { 0 };
        sent.extend(frame(fin | opcode, piece));
    }
    sent
}

#[tokio::test]
async fn a_message_in_64_fragments_is_answered_and_one_in_65_is_closed_with_1008() {
    let server = care();
    for path in PATHS {
        let mut raw = Raw::open(&server, path).await;
        raw.bytes(&pieces(640, 64)).await;
        raw.next_text().await;
        raw.bytes(&pieces(65_536, 64)).await;
        raw.next_text().await;
        raw.bytes(&pieces(650, 65)).await;
        assert_eq!(raw.closed().await.code, 1008, "{path}");
    }
    assert_eq!(counted(&server, "fragments").await, 2);
}

#[tokio::test]
async fn empty_fragments_without_an_end_are_closed_with_1008() {
    let server = care();
    for path in PATHS {
        let mut raw = Raw::open(&server, path).await;
        raw.bytes(&frame(TEXT, b"")).await;
        for _ in 0..63 {
            raw.bytes(&frame(CONTINUATION, b"")).await;
        }
        // It is still there.
        raw.bytes(&frame(FIN | PING, b"?")).await;
        assert_eq!(raw.next().await, Some((10, b"?".to_vec())));
        raw.bytes(&frame(CONTINUATION, b"")).await;
        assert_eq!(raw.closed().await.code, 1008, "{path}");
    }
}

#[tokio::test]
async fn fragments_together_are_bounded_as_one_frame_is_with_1009() {
    let server = care();
    for path in PATHS {
        let mut raw = Raw::open(&server, path).await;
        raw.bytes(&pieces(65_537, 64)).await;
        assert_eq!(raw.closed().await.code, 1009, "{path}");
    }
    assert_eq!(counted(&server, "message_bytes").await, 2);
}

#[tokio::test]
async fn what_announces_too_much_is_closed_before_any_of_it_has_come() {
    let server = care();
    for path in PATHS {
        for length in [65_537, 1 << 20, 1 << 40, (1 << 63) - 1] {
            let mut raw = Raw::open(&server, path).await;
            raw.bytes(&header(FIN | TEXT, length, Form::Long)).await;
            assert_eq!(raw.closed().await.code, 1009, "{path} {length}");
        }
    }
}

#[tokio::test]
async fn the_bounds_of_a_message_are_settings() {
    let server = limited("max_fragments = 2");
    let mut raw = Raw::open(&server, "/socket/all/").await;
    raw.bytes(&pieces(100, 2)).await;
    raw.next_text().await;
    raw.bytes(&pieces(100, 3)).await;
    assert_eq!(raw.closed().await.code, 1008);
    let config = format!("[server]\nmax_message_bytes = 1024\n{}", super::CARE);
    let server = Server::configured(&config, super::CARE_TABLES);
    let mut raw = Raw::open(&server, "/socket/all/").await;
    raw.bytes(&pieces(1024, 1)).await;
    raw.next_text().await;
    raw.bytes(&pieces(1025, 1)).await;
    assert_eq!(raw.closed().await.code, 1009);
}

#[tokio::test]
async fn frames_that_hold_nothing_complete_cost_no_memory_beyond_their_bytes() {
    let server = care();
    let resident = || crate::crowds::resident(server.pid());
    let mut held = Vec::new();
    // The first ones pay for what all share.
    for _ in 0..20 {
        held.push(Raw::open(&server, "/socket/all/").await);
    }
    let before = resident();
    for _ in 0..200 {
        let mut raw = Raw::open(&server, "/socket/all/").await;
        raw.bytes(&header(TEXT, 65_000, Form::Middle)).await;
        raw.bytes(b"x").await;
        held.push(raw);
    }
    wait_until("all to be there", async || {
        (server.counted("sessions").await == 220).then_some(())
    })
    .await;
    let each = (resident().saturating_sub(before)) * 1024 / 200;
    assert!(
        each < 16 * 1024,
        "{each} bytes for 65,000 that are announced"
    );
}

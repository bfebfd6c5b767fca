//! The way along the stream of a session with `mode: "latest"` that has fallen behind.

use std::sync::Arc;

use super::{End, Session, latest::Window, wire::WRITE_BYTES};
use crate::{protocol::Mode, ring::Frame};

/// Frames that a session may be behind before it is sent the newest only; or `WRITE_BYTES`.
const BEHIND_FRAMES: usize = 256;

impl Session {
    /// Whether so much lies before this session that it is sent the newest of each key only:
    /// `frames` are the next ones, as many as are written at once, and end at `next`.
    pub(super) fn is_behind(&self, frames: &[Arc<Frame>], next: u64, until: u64) -> bool {
        let more = || next < until.min(self.gateway.ring.head().seq);
        self.mode == Mode::Latest && (frames.len() > BEHIND_FRAMES || more())
    }

    /// Sends one window of what lies in the ring between `seq` and `until`.
    pub(super) async fn skim(
        &mut self,
        mut seq: u64,
        until: u64,
        superseded: &[Arc<str>],
    ) -> Result<(), End> {
        let (mut window, mut cursor) = (Window::default(), self.cursor.clone());
        'window: while !window.is_full() {
            let Some(frames) = self.gateway.ring.read(seq, until, WRITE_BYTES) else {
                break;
            };
            if frames.is_empty() {
                break;
            }
            for frame in &frames {
                if !self.can_judge(frame) {
                    break 'window;
                }
                if let Some((verdict, text)) = self.shown(frame, superseded).await {
                    window.push(frame, verdict, text);
                }
                seq += 1;
                cursor = frame.position.clone();
                if window.is_full() {
                    break 'window;
                }
            }
        }
        self.send(window).await?;
        (self.seq, self.cursor) = (Some(seq), cursor);
        self.wire.flush().await
    }

    /// Sends the newest of a stretch from the bus, in windows.
    pub(super) async fn condense<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Frame>,
    ) -> Result<(), End> {
        let (mut window, mut cursor) = (Window::default(), self.cursor.clone());
        for frame in frames {
            if !self.can_judge(frame) {
                break;
            }
            if let Some((verdict, text)) = self.shown(frame, &[]).await {
                window.push(frame, verdict, text);
            }
            cursor = frame.position.clone();
            if window.is_full() {
                self.send(std::mem::take(&mut window)).await?;
                self.cursor = cursor.clone();
            }
        }
        self.send(window).await?;
        self.cursor = cursor;
        Ok(())
    }

    async fn send(&mut self, window: Window) -> Result<(), End> {
        for kept in window.into_kept() {
            self.cursor = kept.position;
            self.feed(&kept.text).await?;
        }
        Ok(())
    }
}

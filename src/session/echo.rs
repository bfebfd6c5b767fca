//! Sockets that are not of the group: the tutorial's echo, and one that tests hold against RFC 6455.

use std::time::Duration;

use super::{
    End, Gateway,
    inbound::Limits,
    rights::Rights,
    socket::Socket,
    wire::{Data, Wire},
};
use crate::{
    identity::Identity,
    protocol::{CloseReason, ECHO_CLOSE, ECHO_PREFIX},
};

/// How long a mirrored socket may take nothing.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(60);

/// The tutorial's echo, for somebody and for as long as he may: every text is answered with the local
/// time; the text `close` closes.
pub async fn echo(socket: Socket, gateway: &Gateway, identity: &Identity) {
    let rights = Rights::of(&gateway.auth, identity);
    let mut wire = Wire::new(socket, &gateway.config);
    let end = tokio::select! {
        biased;
        why = rights.end() => gateway.ends(why),
        end = answer(&mut wire, gateway) => end,
    };
    if let End::Close(reason) = end {
        gateway.closes(reason);
        if reason.silences() {
            wire.forget();
        }
        wire.close(reason).await;
    }
}

async fn answer(wire: &mut Wire, gateway: &Gateway) -> End {
    let idle = gateway.config.ping_interval + gateway.config.pong_timeout;
    let mut asked = false;
    loop {
        let inbound = tokio::select! {
            inbound = wire.recv() => inbound,
            () = gateway.stop.cancelled() => return End::Close(CloseReason::Restart),
            () = tokio::time::sleep(idle) => {
                if asked {
                    return End::Close(CloseReason::NoPong);
                }
                asked = true;
                match wire.ping().await {
                    Ok(()) => continue,
                    Err(end) => return end,
                }
            }
        };
        asked = false;
        let sent = match wire.attend(inbound).await {
            Ok(Some(Data::Text(text))) if text == ECHO_CLOSE => {
                Err(End::Close(CloseReason::Normal))
            }
            Ok(Some(Data::Text(_))) => {
                let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S");
                wire.send(format!("{ECHO_PREFIX}{now}")).await
            }
            Ok(Some(Data::Binary(_))) => Err(End::Close(CloseReason::Binary)),
            Ok(None) => Ok(()),
            Err(end) => Err(end),
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

/// Sends back whatever comes, texts and bytes, until the socket closes: the connection of a session with
/// nothing on top, as Autobahn|Testsuite wants it. A message may have so many bytes.
pub async fn mirror(socket: Socket, message_bytes: usize) {
    let limits = Limits {
        message_bytes,
        fragments: message_bytes,
    };
    let mut wire = Wire::within(socket, limits, MIRROR_TIMEOUT);
    let end = loop {
        let inbound = wire.recv().await;
        let sent = match wire.attend(inbound).await {
            Ok(Some(Data::Text(text))) => wire.send(text).await,
            Ok(Some(Data::Binary(bytes))) => wire.send_bytes(&bytes).await,
            Ok(None) => Ok(()),
            Err(end) => Err(end),
        };
        if let Err(end) = sent {
            break end;
        }
    };
    if let End::Close(reason) = end {
        wire.close(reason).await;
    }
}

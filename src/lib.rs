//! Rowcast carries committed database changes to every browser that should see them, on one
//! WebSocket, without a gap, and answers that browser's direct queries on the same socket.

pub mod event;
pub mod position;
pub mod protocol;
pub mod row;
pub mod sqlite;
pub mod topic;

//! Who may see what: of a topic with a policy, or with columns by role, nobody learns anything that is not his,
//! by whatever way he asks or listens.

mod agreement;
mod answers;
mod apart;
mod away;
mod claims;
mod compressed;
mod events;
mod home;
mod lowered;
mod roles;
mod scene;
mod start;
mod work;
mod worlds;

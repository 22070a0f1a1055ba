//! The guide: what there is to know beyond the items themselves.

#[doc = include_str!("concepts.md")]
pub mod concepts {}

#[doc = include_str!("delivery.md")]
pub mod delivery {}

#[doc = include_str!("wire_format.md")]
pub mod wire_format {}

#[doc = include_str!("redis_layout.md")]
pub mod redis_layout {}

#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("operations.md")]
pub mod operations {}

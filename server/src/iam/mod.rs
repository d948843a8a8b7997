//! Who a caller is and what they may do.

pub mod caller;
pub mod policy;

pub use caller::{Caller, Tokens};
pub use policy::{Action, Role};

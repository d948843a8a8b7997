//! Making files by programs that are not trusted: dependencies, what a language makes of its worker,
//! what a compiler makes of a source.

pub(crate) mod hidden;
pub(crate) mod run;
pub(crate) mod settle;
pub(crate) mod source;

use crate::layer::LayerLimits;

/// The host user that builders run as, where the server is root. Functions have higher ids.
pub(crate) const BUILD_UID: u32 = 199_999;
/// Where a builder writes, inside.
pub(crate) const OUTPUT: &str = "/build/output";

//! End-to-end stories on the real program.

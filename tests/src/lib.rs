//! End-to-end suites on real parts.

//! warren-leases

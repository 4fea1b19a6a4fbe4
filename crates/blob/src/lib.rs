//! warren-blob

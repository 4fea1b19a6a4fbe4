//! warren-inference

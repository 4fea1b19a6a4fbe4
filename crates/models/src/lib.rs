//! warren-models

//! warren-audio

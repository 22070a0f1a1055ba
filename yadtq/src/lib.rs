//! YADTQ

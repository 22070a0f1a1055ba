//! Limits: how often tasks start, and how many run at once.

mod admission;
mod line;
mod permits;
mod rate;

pub use self::rate::{BadRate, Rate};
pub(crate) use self::{
    admission::{Admission, Arrival, LATE_US, RATE_SLACK_US, RECHECK_SPACING_US, RECHECK_US, RateState, admit},
    line::LATE_BATCH,
    permits::{
        PERMIT_CLOCK_TOLERANCE_MS, PERMIT_RETRY_DELAY, PERMIT_RETRY_SPACING_MS, PermitTerms, Permits, acquire_permit,
    },
};

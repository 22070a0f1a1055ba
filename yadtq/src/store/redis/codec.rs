//! Task hashes and the answers of scripts, as values.

use fred::types::Value;

use crate::core::lifecycle::{Claim, FollowUp, Progress, Status, TaskState};

/// The answer to a claim in one batch of several calls.
pub(super) enum Claimed {
    Claim(Claim),
    /// Not granted for want of a quarantine slot; as `LeaseProof` for so many ms.
    NoSlot(u64),
}

impl Claimed {
    pub(super) fn into_claim(self) -> Claim {
        match self {
            Self::Claim(claim) => claim,
            Self::NoSlot(ms_left) => Claim::Held { ms_left, mine: false },
        }
    }
}

/// Reads one answer of `claim.lua` to a record of this attempt; an error is what is wrong with the key.
pub(super) fn claim(answer: &[Value], asked: u32) -> Result<Claimed, String> {
    let [code, a, b] = answer else { return Err(format!("answered {answer:?}")) };
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let small = |value: &Value| u32::try_from(number(value)).unwrap_or(u32::MAX);
    Ok(Claimed::Claim(match code.as_u64() {
        Some(0) => Claim::Granted { token: number(a), deliveries: small(b), attempt: asked },
        Some(1) => Claim::Held { ms_left: number(a), mine: number(b) == 1 },
        Some(2) => Claim::Done,
        Some(3) => Claim::Revoked,
        Some(4) => {
            let (attempt, due) = parse_next(&text(a)).ok_or_else(|| format!("moved to `{}`", text(a)))?;
            Claim::Moved { attempt, due, error: Some(text(b)).filter(|error| !error.is_empty()).map(Into::into) }
        }
        Some(5) => Claim::Dead { error: text(a).into(), deliveries: small(b) },
        Some(8) => {
            let pair = text(b);
            let (deliveries, attempt) = pair.split_once(':').ok_or_else(|| format!("granted `{pair}`"))?;
            let small = |number: &str| number.parse::<u32>().map_err(|_| format!("granted `{pair}`"));
            Claim::Granted { token: number(a), deliveries: small(deliveries)?, attempt: small(attempt)? }
        }
        Some(6) => return Ok(Claimed::NoSlot(number(a))),
        _ => return Err(text(a)),
    }))
}

fn parse_follow_up(text: &str) -> Result<FollowUp, String> {
    match text.strip_prefix("next:").map(parse_next) {
        Some(Some((attempt, due))) => Ok(FollowUp::Next { attempt, due }),
        None if text == "dead" => Ok(FollowUp::Dead),
        None if text == "stay" => Ok(FollowUp::Stay),
        _ => Err(format!("the field 'hand-on' is `{text}`")),
    }
}

/// `attempt:due`.
fn parse_next(text: &str) -> Option<(u32, u64)> {
    let (attempt, due) = text.split_once(':')?;
    Some((attempt.parse().ok()?, due.parse().ok()?))
}

/// Reads the answer to `HGETALL`; `None` if there is none. Fields of later versions are skipped.
pub(super) fn state(hash: Value) -> Result<Option<TaskState>, String> {
    let Value::Array(fields) = hash else { return Err(text(&hash)) };
    if fields.is_empty() {
        return Ok(None);
    }
    let mut state = TaskState { queued_at: None, ..TaskState::queued("".into(), "".into(), 0) };
    let mut has_status = false;
    let mut progress = Progress { number: 0, value: "".into() };
    for pair in fields.chunks_exact(2) {
        let value = std::str::from_utf8(pair[1].as_bytes().unwrap_or_default()).map_err(|error| error.to_string())?;
        let number = || value.parse::<u64>().map_err(|_| format!("{} is `{value}`", text(&pair[0])));
        let small = || number().and_then(|number| u32::try_from(number).map_err(|error| error.to_string()));
        match pair[0].as_bytes().unwrap_or_default() {
            b"status" => {
                state.status = value.parse::<Status>().map_err(|_| format!("status is `{value}`"))?;
                has_status = true;
            }
            b"seq" => state.seq = number()?,
            b"attempt" => state.attempt = small()?,
            b"token" => state.token = number()?,
            b"deliveries" => state.deliveries = small()?,
            b"worker" => state.worker = Some(value.into()),
            b"nonce" => state.nonce = number()?,
            b"lease-until" => state.lease_until = number()?,
            b"revoke" => state.revoke = true,
            b"hand-on" => state.follow_up = Some(parse_follow_up(value)?),
            b"carried" => state.carried = true,
            b"task" => state.task = value.into(),
            b"queue" => state.queue = value.into(),
            b"result" => state.result = Some(value.into()),
            b"error" => state.error = Some(value.into()),
            b"eta" => state.eta = Some(number()?),
            b"progress" => progress.value = value.into(),
            b"progress-number" => progress.number = number()?,
            b"queued-at" => state.queued_at = Some(number()?),
            b"started-at" => state.started_at = Some(number()?),
            b"finished-at" => state.finished_at = Some(number()?),
            _ => {}
        }
    }
    state.progress = (!progress.value.is_empty()).then_some(progress);
    if has_status { Ok(Some(state)) } else { Err("it has no status".to_owned()) }
}

/// A string that Redis answered.
pub(super) fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}

//! Why Redis refuses, by its answer.

/// The code of a server that has become a replica.
pub(super) const REPLICA: &str = "READONLY";

/// The code of an error that Redis answers: its first word.
pub(super) fn code(reply: &str) -> &str {
    // Redis 6 says first where in a script it happened: `ERR Error running script (call to f_..): @user_script:7: @user_script: 7: -OOM ..`.
    let at = reply.rsplit_once("@user_script: ").and_then(|(_, rest)| rest.split_once(": "));
    let reply = at.map_or(reply, |(_, rest)| rest);
    reply.trim_start_matches('-').split_ascii_whitespace().next().unwrap_or_default()
}

/// Whether this is a code: the server has answered, with an error.
pub(super) fn is_answer(code: &str) -> bool {
    code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// What to do if the server takes no writes; `None`: the code says something else.
pub(super) fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "OOM" => "its memory is full: raise maxmemory, or delete what is not needed",
        "NOREPLICAS" => "too few replicas are connected: bring them back, or lower min-replicas-to-write",
        "MISCONF" => {
            "it cannot save to disk: see its log and free disk space, or set stop-writes-on-bgsave-error to no"
        }
        REPLICA => "it is a replica by now: let YADTQ_REDIS name the master, or promote it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_wherever_redis_puts_it() {
        for (reply, expected) in [
            ("OOM command not allowed when used memory > 'maxmemory'. script: 1a, on @user_script:12.", "OOM"),
            (
                "ERR Error running script (call to f_1a): @user_script:7: @user_script: 7: -OOM command not allowed",
                "OOM",
            ),
            ("READONLY You can't write against a read only replica.", "READONLY"),
            ("-MISCONF Errors writing to the AOF file", "MISCONF"),
            ("ERR unknown command", "ERR"),
            ("Connection refused", "Connection"),
            ("", ""),
        ] {
            assert_eq!(code(reply), expected, "{reply}");
        }
        assert!(is_answer("OOM") && !is_answer("Connection") && !is_answer(""));
    }
}

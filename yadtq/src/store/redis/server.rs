//! What a Redis says of itself, and which of its settings endanger results.

use crate::store::StoreInfo;

/// Older servers lack what the scripts need.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// Reads the answer to `INFO`.
pub(super) fn describe(info: &str, address: &str) -> StoreInfo {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
    };
    let version = field("redis_version");
    let mut warnings = Vec::new();
    if number(version) < OLDEST_VERSION {
        warnings.push(format!("redis {version} is too old: upgrade it to 6.2 or later"));
    }
    match field("maxmemory_policy") {
        "noeviction" | "" => {}
        policy => warnings.push(format!(
            "maxmemory-policy is {policy}: redis may evict the claims of running tasks, which then run twice; \
             set it to noeviction"
        )),
    }
    if field("aof_enabled") == "0" {
        warnings.push(
            "appendonly is off: a redis that restarts has forgotten recent results and claims (never tasks, which \
             run again); set it to yes"
                .to_owned(),
        );
    }
    let product = if field("server_name") == "valkey" { "valkey" } else { "redis" };
    let mode = Some(field("redis_mode")).filter(|mode| !mode.is_empty()).unwrap_or("standalone");
    StoreInfo { summary: format!("{product} {version} at {address} ({mode})"), warnings }
}

/// A server that may not be asked.
pub(super) fn unknown(address: &str) -> StoreInfo {
    let warning = "this user may not run INFO, so the version and the settings are not known; allow it with: ACL SETUSER <user> +info";
    StoreInfo { summary: format!("redis at {address}"), warnings: vec![warning.to_owned()] }
}

fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, policy: &str, aof: u8) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\nredis_mode:cluster\r\n# Memory\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\n"
        )
    }

    #[test]
    fn nothing_to_fix() {
        let described = describe(&info("6.2.0", "noeviction", 1), "db:6379");
        assert_eq!(described.summary, "redis 6.2.0 at db:6379 (cluster)");
        assert_eq!(described.warnings, Vec::<String>::new());
    }

    #[test]
    fn each_warning_names_its_remedy() {
        let warnings = describe(&info("6.0.16", "allkeys-lru", 0), "db:6379").warnings;
        let remedies = ["upgrade it to 6.2", "set it to noeviction", "set it to yes"];
        assert_eq!(warnings.len(), remedies.len());
        for (warning, remedy) in warnings.iter().zip(remedies) {
            assert!(warning.contains(remedy), "{warning}");
        }
    }
}

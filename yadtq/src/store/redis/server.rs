//! What a Redis says of itself, and which of its settings endanger results.

use crate::store::{Memory, StoreInfo};

/// Older servers lack what the scripts need.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// Reads the answer to `INFO`.
pub(super) fn describe(info: &str, address: &str) -> StoreInfo {
    let field = |name: &str| field(info, name);
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

/// How full a server is, if it has a limit, from its answer to `INFO memory`.
pub(super) fn memory(info: &str, address: &str) -> Option<Memory> {
    let bytes = |name: &str| field(info, name).parse().ok();
    let (used, most) = (bytes("used_memory")?, bytes("maxmemory").filter(|&most| most > 0)?);
    Some(Memory { server: address.to_owned(), used, most })
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
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
    fn a_server_without_a_limit_is_never_full() {
        let info = |used: &str, most: &str| {
            format!("# Memory\r\nused_memory:{used}\r\nused_memory_rss:9\r\nmaxmemory:{most}\r\n")
        };
        let full = Memory { server: "db:6379".to_owned(), used: 5, most: 7 };
        assert_eq!(memory(&info("5", "7"), "db:6379"), Some(full));
        assert_eq!(memory(&info("5", "0"), "db:6379"), None);
        assert_eq!(memory("", "db:6379"), None);
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

//! The guide explains what goes beyond single items: concepts, guarantees, formats, operations.

#[doc = include_str!("concepts.md")]
pub mod concepts {}

#[doc = include_str!("scheduling.md")]
pub mod scheduling {}

#[doc = include_str!("ordering.md")]
pub mod ordering {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("delivery.md")]
pub mod delivery {}

#[doc = include_str!("idempotency.md")]
pub mod idempotency {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("distribution.md")]
pub mod distribution {}

#[doc = include_str!("dead_letters.md")]
pub mod dead_letters {}

#[doc = include_str!("control.md")]
pub mod control {}

#[doc = include_str!("periodic.md")]
pub mod periodic {}

#[doc = include_str!("wire_format.md")]
pub mod wire_format {}

#[doc = include_str!("redis_layout.md")]
pub mod redis_layout {}

#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("sizing.md")]
pub mod sizing {}

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

// Makes the README's programs doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Every `event` in the sources under a folder.
    fn events(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                events(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let mut names = text.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.by_ref().filter(|name| !name.contains('\\')).map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_event_is_in_the_table() {
        let mut found = Vec::new();
        events(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 40, "the sources are searched: {}", found.len());
        let table = include_str!("logging.md");
        let missing: Vec<_> = found.iter().filter(|name| !table.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "not in logging.md: {missing:?}");
    }
}

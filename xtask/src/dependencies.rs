//! Checks the licences and the Rust versions that dependencies declare.
//!
//! A dependency that needs a newer Rust than `rust-version` would raise the MSRV
//! unnoticed. Comparing the declarations needs no second toolchain. `cargo deny`
//! does not compare them, and is not on every machine; where it is, it runs too.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::project::{self, Project};

const MSRV: &str = env!("CARGO_PKG_RUST_VERSION");

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    rust_version: Option<String>,
    /// Absent for the workspace's own packages.
    source: Option<String>,
}

#[derive(Deserialize)]
struct DenyFile {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

/// Fails with a line for each dependency that breaks a rule.
pub(crate) fn check(project: &Project) -> Result<()> {
    let allowed = allowed_licences(project)?;
    let metadata: Metadata = project::metadata(&["--all-features"])?;
    let foreign = || metadata.packages.iter().filter(|package| package.source.is_some());
    let complaints: Vec<_> = foreign()
        .flat_map(|package| {
            let found = [licence_complaint(package, &allowed), msrv_complaint(package)];
            found.into_iter().flatten().map(move |text| format!("  {} {}: {text}", package.name, package.version))
        })
        .collect();
    if !complaints.is_empty() {
        bail!("dependencies break rules:\n{}", complaints.join("\n"));
    }
    eprintln!("{} dependencies: licences allowed, none needs a Rust newer than {MSRV}", foreign().count());
    Ok(())
}

fn allowed_licences(project: &Project) -> Result<Vec<Licensee>> {
    let path = project.root.join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let file: DenyFile = toml::from_str(&text).with_context(|| format!("can't read {}", path.display()))?;
    file.licenses
        .allow
        .iter()
        .map(|name| Licensee::parse(name).with_context(|| format!("deny.toml allows {name}, which is no SPDX licence")))
        .collect()
}

fn licence_complaint(package: &Package, allowed: &[Licensee]) -> Option<String> {
    let Some(licence) = &package.license else {
        return Some("declares no licence; use another crate".to_owned());
    };
    // Lax, because older crates still write `MIT/Apache-2.0`.
    let Ok(expression) = Expression::parse_mode(licence, ParseMode::LAX) else {
        return Some(format!("its licence `{licence}` is no SPDX expression; use another crate"));
    };
    let satisfied = expression.evaluate(|required| allowed.iter().any(|licence| licence.satisfies(required)));
    (!satisfied)
        .then(|| format!("its licence `{licence}` is not in deny.toml's `allow`; use another crate, or allow it"))
}

fn msrv_complaint(package: &Package) -> Option<String> {
    let needs = package.rust_version.as_deref()?;
    (version(needs) > version(MSRV)).then(|| {
        format!("needs Rust {needs}, the workspace promises {MSRV}; use an older version, or raise `rust-version`")
    })
}

/// `1.89` and `1.89.0` are the same Rust.
fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(license: Option<&str>, rust_version: Option<&str>) -> Package {
        Package {
            name: "some".to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            rust_version: rust_version.map(str::to_owned),
            source: None,
        }
    }

    #[test]
    fn a_licence_must_be_satisfiable_from_the_list() {
        let allowed = [Licensee::parse("MIT").unwrap(), Licensee::parse("Unicode-3.0").unwrap()];
        let complains = |licence| licence_complaint(&package(licence, None), &allowed).is_some();
        for good in ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only/MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(!complains(Some(good)), "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND Apache-2.0", "proprietary", ""] {
            assert!(complains(Some(bad)), "{bad}");
        }
        assert!(complains(None));
    }

    #[test]
    fn a_newer_rust_is_a_complaint() {
        assert!(msrv_complaint(&package(None, None)).is_none());
        assert!(msrv_complaint(&package(None, Some("1.9"))).is_none());
        assert!(msrv_complaint(&package(None, Some(MSRV))).is_none());
        assert!(msrv_complaint(&package(None, Some("1.1000.0"))).is_some());
        assert_eq!(version("1.89"), version("1.89.0"));
    }
}

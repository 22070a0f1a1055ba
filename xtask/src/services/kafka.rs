//! Starts a real Apache Kafka without Docker: its jars come from Maven Central, and
//! one KRaft node is broker and controller at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};

use super::{ports, process};
use crate::command;
use crate::project::Project;

const POM: &str = include_str!("../../kafka/pom.xml");
/// Any id works, since there is no other cluster.
const CLUSTER_ID: &str = "q1Sh-9_ISia_zwGINzRvyQ";

pub(super) fn start(project: &Project, directory: &Path, port: u16) -> Result<Child> {
    let libraries = fetch_libraries(project)?;
    let data = directory.join("data");
    let config = directory.join("server.properties");
    // Nothing listens on `port` yet, so the search could return it again.
    let controller_port = ports::free(port.checked_add(1))?;
    fs::write(&config, properties(port, controller_port, &data))
        .with_context(|| format!("can't write {}", config.display()))?;
    if !data.join("meta.properties").exists() {
        let mut format = java(&libraries);
        format.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.tools.StorageTool", "format"]);
        command::run_quietly(format.args(["-t", CLUSTER_ID, "-c"]).arg(&config))?;
    }
    let mut server = java(&libraries);
    server
        .args(["-Xms256m", "-Xmx1g", "-XX:+ExitOnOutOfMemoryError"])
        .args(["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"])
        .arg("kafka.Kafka")
        .arg(&config);
    process::spawn(&mut server, directory)
}

/// The directory of Kafka's jars, if all of them are in it.
pub(super) fn libraries(project: &Project) -> Option<PathBuf> {
    let directory = project.target.join("services").join("kafka-libs");
    // The marker holds the POM of the jars, so that a changed POM fetches them again.
    let complete = fs::read_to_string(directory.join(MARKER)).is_ok_and(|pom| pom == POM);
    complete.then_some(directory)
}

/// The directory of Kafka's jars. Fetches them if necessary, with Java and Maven.
pub(super) fn fetch_libraries(project: &Project) -> Result<PathBuf> {
    let services = project.target.join("services");
    let directory = services.join("kafka-libs");
    let lock = super::open_lock(&services.join("fetch"))?;
    lock.lock().context("can't lock the directory of Kafka's jars")?;
    if let Some(present) = libraries(project) {
        return Ok(present);
    }

    eprintln!("kafka: fetching its jars from Maven Central (about 60 MB)");
    super::remove_directory(&directory)?;
    fs::create_dir_all(&directory).with_context(|| format!("can't create {}", directory.display()))?;
    let mut maven = project.command("mvn");
    maven
        .args(["--quiet", "--batch-mode", "-Dstyle.color=never", "--file"])
        .arg(project.root.join("xtask/kafka/pom.xml"));
    maven.arg("dependency:copy-dependencies").arg(format!("-DoutputDirectory={}", directory.display()));
    command::run(&mut maven)?;
    let marker = directory.join(MARKER);
    fs::write(&marker, POM).with_context(|| format!("can't write {}", marker.display()))?;
    Ok(directory)
}

fn java(libraries: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(libraries.join("*"));
    command
}

fn properties(port: u16, controller_port: u16, data: &Path) -> String {
    // A backslash escapes in this format.
    let data = data.display().to_string().replace('\\', r"\\");
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}

# One broker can't replicate.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# A worker that starts alone does not wait 3 s for others.
group.initial.rebalance.delay.ms=0
"
    )
}

const MARKER: &str = ".complete";

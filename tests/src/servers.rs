//! The servers that a test uses: the shared ones, or a Redis of its own that it may break.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Kafka's bootstrap servers.
///
/// # Panics
/// The environment names none.
#[must_use]
pub fn kafka() -> String {
    var("YADTQ_KAFKA")
}

/// The URL of Redis.
///
/// # Panics
/// The environment names none.
#[must_use]
pub fn redis() -> String {
    var("YADTQ_REDIS")
}

/// A command that runs one of Kafka's own tools.
///
/// # Panics
/// The environment does not say where they are.
#[must_use]
pub fn kafka_tool(class: &str) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(format!("{}/*", var("YADTQ_TEST_KAFKA_LIBS"))).arg(class);
    command
}

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `cargo xtask test`"))
}

/// A port that nobody listens on.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// A Redis of the test's own.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    dir: TempDir,
    args: Vec<String>,
    child: Child,
}

impl Redis {
    /// Starts one on a free port, with these arguments besides.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        Self::start_on(free_port(), args)
    }

    /// Starts one on this port.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start_on(port: u16, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let child = Self::spawn(port, &dir, &args);
        Self { port, dir, args, child }
    }

    fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Child {
        let program =
            std::env::var_os("YADTQ_TEST_REDIS_SERVER").map_or_else(|| PathBuf::from("redis-server"), PathBuf::from);
        Command::new(&program)
            .args(["--port", &port.to_string(), "--save", "", "--loglevel", "warning", "--dir"])
            .arg(dir.path())
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()))
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn stop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Starts it again after [`stop`](Self::stop).
    pub fn start_again(&mut self) {
        self.child = Self::spawn(self.port, &self.dir, &self.args);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been stopped by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

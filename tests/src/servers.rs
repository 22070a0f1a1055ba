//! The servers that a test uses: the shared ones, or some of its own that it may break.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// Kafka's bootstrap servers.
///
/// # Panics
/// The environment does not name any.
#[must_use]
pub fn kafka() -> String {
    var("YADTQ_KAFKA")
}

/// The URL of Redis.
///
/// # Panics
/// The environment does not name any.
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

/// A port on which no process listens.
///
/// # Panics
/// No port is free.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// A Kafka of the test's own: one node, KRaft.
#[derive(Debug)]
pub struct Kafka {
    port: u16,
    second: u16,
    dir: TempDir,
    child: Child,
}

impl Kafka {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with_proxy(free_port())
    }

    /// The same, with a second address that clients reach through a proxy of the test on this port.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start_with_proxy(proxy: u16) -> Self {
        Self::start_as("PLAINTEXT", free_port(), proxy, "")
    }

    /// One with a second address, at which users give their name and the password `password`, and may do what
    /// [`allow`](Self::allow) says.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start_with_users(users: &[&str]) -> Self {
        let users: Vec<_> = users.iter().map(|user| format!("user_{user}=\"password\"")).collect();
        let settings = format!(
            "sasl.enabled.mechanisms=PLAIN\nsuper.users=User:ANONYMOUS\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             listener.name.second.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required {};\n",
            users.join(" ")
        );
        let port = free_port();
        Self::start_as("SASL_PLAINTEXT", port, port, &settings)
    }

    /// The second address has a protocol of its own, and is advertised as another port.
    fn start_as(protocol: &str, second: u16, advertised: u16, settings: &str) -> Self {
        let (port, controller) = (free_port(), free_port());
        let dir = tempfile::tempdir().expect("a directory");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},SECOND://127.0.0.1:{second},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECOND://127.0.0.1:{advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECOND:{protocol},CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
             offsets.topic.num.partitions=4\n{settings}log.dirs={}\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("server.properties"), properties).expect("written");
        let formatted = kafka_tool("kafka.tools.StorageTool")
            .args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"])
            .arg(dir.path().join("server.properties"))
            .output()
            .expect("java runs");
        assert!(formatted.status.success(), "{formatted:?}");
        let child = Self::spawn(&dir);
        Self { port, second, dir, child }
    }

    fn spawn(dir: &TempDir) -> Child {
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let mut command = kafka_tool("kafka.Kafka");
        command.arg(dir.path().join("server.properties")).env("JAVA_TOOL_OPTIONS", "-Xmx512m");
        command.stderr(log.try_clone().expect("a log")).stdout(log).spawn().expect("java runs")
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its second address: where the proxy has to connect to, or users.
    #[must_use]
    pub fn second_address(&self) -> String {
        format!("127.0.0.1:{}", self.second)
    }

    /// Runs `kafka-acls.sh` with these arguments.
    ///
    /// # Panics
    /// It fails.
    pub fn allow(&self, args: &[&str]) {
        let mut command = kafka_tool("org.apache.kafka.tools.AclCommand");
        let ran = command.arg("--bootstrap-server").arg(self.address()).args(args).output().expect("java runs");
        assert!(ran.status.success(), "{ran:?}");
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Its process, to suspend it.
    #[must_use]
    pub fn process(&self) -> Still<'_> {
        Still(&self.child)
    }

    /// Starts it again after [`kill`](Self::kill), with its data.
    pub fn start_again(&mut self) {
        self.child = Self::spawn(&self.dir);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // The test may have killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    /// Starts one on a free port, with these additional arguments.
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

    /// Starts a sentinel with the password `watched` that watches this master under the name `yadtq`, and replaces it after a second of silence if one more agrees.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start_sentinel(master: u16) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("sentinel.conf");
        let lines = [
            format!("sentinel monitor yadtq 127.0.0.1 {master} 2"),
            "requirepass watched".to_owned(),
            "sentinel down-after-milliseconds yadtq 1000".to_owned(),
            "sentinel failover-timeout yadtq 5000".to_owned(),
        ];
        std::fs::write(&config, lines.join("\n")).expect("written");
        let port = free_port();
        let child = Self::program()
            .arg(config)
            .args(["--sentinel", "--port", &port.to_string(), "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn()
            .expect("a sentinel");
        Self { port, dir, args: Vec::new(), child }
    }

    fn program() -> Command {
        let program =
            std::env::var_os("YADTQ_TEST_REDIS_SERVER").map_or_else(|| PathBuf::from("redis-server"), PathBuf::from);
        // A write beyond the limit of `limit_files` is to fail, not to kill it.
        let mut command = Command::new("sh");
        command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(program);
        command
    }

    fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Child {
        Self::program()
            .args(["--port", &port.to_string(), "--save", "", "--loglevel", "warning", "--dir"])
            .arg(dir.path())
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .expect("a redis")
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

    /// Its process, to suspend it.
    #[must_use]
    pub fn process(&self) -> Still<'_> {
        Still(&self.child)
    }

    /// Where it writes its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets it write no file beyond this number of bytes, as on a full disk; `None`: no limit.
    ///
    /// # Panics
    /// The limit cannot be set.
    #[cfg(target_os = "linux")]
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(Some(pid(&self.child)), rustix::process::Resource::Fsize, limit).expect("a limit");
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
        // The test may have stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Redis Cluster of the test's own: three masters without replicas, which keep their data.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters. The first has the lowest third of the slots, and so on.
    pub masters: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one on free ports, and waits until it has joined up.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let masters: Vec<_> = (0..3).map(|_| Self::master()).collect();
        let addresses: Vec<_> = masters.iter().map(|master| format!("127.0.0.1:{}", master.port)).collect();
        for address in &addresses {
            while TcpStream::connect(address).is_err() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let server = std::env::var_os("YADTQ_TEST_REDIS_SERVER").map_or_else(PathBuf::new, PathBuf::from);
        let mut create = Command::new(server.with_file_name("redis-cli"));
        create.args(["--cluster", "create"]).args(&addresses).arg("--cluster-yes");
        let created = create.output().expect("redis-cli runs");
        assert!(created.status.success(), "{created:?}");
        Self { masters }
    }

    fn master() -> Redis {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "3000"];
        // By default the others refuse everything while one is away.
        let options = [&options[..], &["--cluster-require-full-coverage", "no", "--appendonly", "yes"]].concat();
        Redis::start(&options)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|at| format!("127.0.0.1:{}", self.masters[at].port));
        format!("redis-cluster://{first}?node={second}&node={third}")
    }

    /// Which master has this key.
    #[must_use]
    pub fn master_of(&self, key: &str) -> usize {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        let slot = crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % 16_384;
        // As redis-cli shares them out.
        usize::from(slot > 5_460) + usize::from(slot > 10_922)
    }
}

/// The checksum by which Redis hashes keys: CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    let shift = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), shift))
}

/// A server's process, which can be suspended.
#[derive(Debug)]
pub struct Still<'a>(&'a Child);

#[cfg(unix)]
impl Still<'_> {
    /// Suspends it with SIGSTOP: it no longer answers.
    ///
    /// # Panics
    /// It cannot be stopped.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Resumes it after [`pause`](Self::pause).
    ///
    /// # Panics
    /// It cannot be continued.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(pid(self.0), signal).expect("it can be signalled");
    }
}

#[cfg(unix)]
fn pid(child: &Child) -> rustix::process::Pid {
    i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id")
}

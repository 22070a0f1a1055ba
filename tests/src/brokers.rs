//! A Kafka of three brokers, which a test may kill one by one.

use std::{
    fs::File,
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use tempfile::TempDir;

use crate::{
    TEST_TIMEOUT,
    servers::{free_port, kafka_tool},
};

const COUNT: usize = 3;
/// How long the controller waits for a broker before it gives its partitions to others. The default is 9 s.
const SESSION_TIMEOUT_MS: u32 = 5_000;

/// Three nodes, each of them broker and controller. Every topic has three replicas, of which two must acknowledge.
#[derive(Debug)]
pub struct Brokers(Vec<Broker>);

#[derive(Debug)]
struct Broker {
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Brokers {
    /// Starts them on free ports, and waits until they have elected a controller.
    ///
    /// # Panics
    /// They cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let controllers: Vec<u16> = (0..COUNT).map(|_| free_port()).collect();
        let voters: Vec<_> = (1..).zip(&controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let brokers = (1..).zip(&controllers).map(|(id, controller)| Broker::new(id, *controller, &voters.join(",")));
        let mut brokers: Vec<Broker> = brokers.collect();
        let formatting: Vec<Child> = brokers.iter().map(Broker::format).collect();
        for mut child in formatting {
            assert!(child.wait().expect("java runs").success(), "the directory is formatted");
        }
        brokers.iter_mut().for_each(Broker::spawn);
        let brokers = Self(brokers);
        brokers.until_up();
        brokers
    }

    /// Waits until each broker takes connections: it does so once it is registered with the controller.
    fn until_up(&self) {
        let start = Instant::now();
        while !self.0.iter().all(|broker| TcpStream::connect(("127.0.0.1", broker.port)).is_ok()) {
            assert!(start.elapsed() < TEST_TIMEOUT, "the brokers are not up within {TEST_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Their addresses, as a client takes them.
    #[must_use]
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.0.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        addresses.join(",")
    }

    /// Which broker leads the first partition of a topic. That of `__consumer_offsets` keeps the offsets of all groups: there is
    /// one partition.
    ///
    /// # Panics
    /// Kafka does not say.
    #[must_use]
    pub fn leader_of(&self, topic: &str) -> usize {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.addresses()).create().expect("a client");
        let metadata = client.fetch_metadata(Some(topic), TEST_TIMEOUT).expect("kafka answers");
        let leader = metadata.topics()[0].partitions().first().map(|partition| partition.leader()).expect("a leader");
        usize::try_from(leader - 1).expect("ids start at 1")
    }

    /// Kills one with SIGKILL.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(&mut self, broker: usize) {
        self.0[broker].kill();
    }

    /// Starts one again after [`kill`](Self::kill), with its data.
    pub fn start_again(&mut self, broker: usize) {
        self.0[broker].spawn();
    }
}

impl Broker {
    fn new(id: u16, controller: u16, voters: &str) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a directory"));
        let properties = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
             broker.session.timeout.ms={SESSION_TIMEOUT_MS}\nbroker.heartbeat.interval.ms=1000\n\
             default.replication.factor={COUNT}\nmin.insync.replicas=2\n\
             offsets.topic.replication.factor={COUNT}\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor={COUNT}\ngroup.initial.rebalance.delay.ms=0\nlog.dirs={}\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("server.properties"), properties).expect("written");
        Self { port, dir, child: None }
    }

    fn format(&self) -> Child {
        let args = ["format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"];
        self.java("kafka.tools.StorageTool", &args).spawn().expect("java runs")
    }

    fn spawn(&mut self) {
        self.child = Some(self.java("kafka.Kafka", &[]).spawn().expect("java runs"));
    }

    fn java(&self, class: &str, args: &[&str]) -> Command {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = kafka_tool(class);
        // Three of them share the machine, and none lives long.
        command.env("JAVA_TOOL_OPTIONS", "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1");
        command.args(args).arg(self.dir.path().join("server.properties"));
        command.stderr(log.try_clone().expect("a log")).stdout(log);
        command
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

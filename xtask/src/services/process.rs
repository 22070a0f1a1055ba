//! Starts, recognises and stops server processes that outlive xtask.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::kind::Kind;
use crate::{command, interrupt};

/// Time between two probes of a server. Servers send no event when they are ready,
/// or about to end.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for the end of a server that was asked to stop, because Kafka
/// flushes its segments first.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of lines of a log that an error shows.
const TAIL_LINES: usize = 30;

/// Starts a server in `directory`, in a process group of its own: Ctrl-C is meant
/// for xtask, and `up` ends long before its servers do.
pub(super) fn spawn(command: &mut Command, directory: &Path) -> Result<Child> {
    let path = Kind::log(directory);
    let log = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    command
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("can't run `{}`", command.get_program().display()))
}

pub(super) fn pid(child: &Child) -> i32 {
    Pid::from_child(child).as_raw_nonzero().get()
}

/// Returns when the server answers. With `process`, fails as soon as that process
/// has ended, with the end of its log.
pub(super) fn wait_until_ready(kind: Kind, address: &str, mut process: Option<(&mut Child, &Path)>) -> Result<()> {
    let deadline = Instant::now() + kind.start_deadline();
    loop {
        let Err(unready) = kind.probe(address) else {
            return Ok(());
        };
        interrupt::check()?;
        let ended = match &mut process {
            Some((child, _)) => child.try_wait()?,
            None => None,
        };
        let reason = match ended {
            Some(status) => format!("it ended ({status})"),
            None if Instant::now() > deadline => {
                format!("after {:?}: {unready:#}", kind.start_deadline())
            }
            None => {
                thread::sleep(PROBE_INTERVAL);
                continue;
            }
        };
        match process {
            Some((_, directory)) => bail!("{kind} didn't start: {reason}\n{}", tail(&Kind::log(directory))),
            None => bail!("{kind} didn't start: {reason}"),
        }
    }
}

/// Whether `pid` is a live server that was started in `directory`. The system uses
/// process ids again, but the command lines of both servers name their directory.
pub(super) fn is_ours(pid: i32, directory: &Path) -> bool {
    command_line(pid).is_some_and(|line| line.contains(&directory.display().to_string()))
}

/// Asks the server to end, waits, and kills it if it doesn't. Does nothing to a
/// process of somebody else, or one that has ended.
pub(super) fn stop(pid: i32, directory: &Path, name: &str) -> Result<()> {
    let Some(target) = Pid::from_raw(pid).filter(|_| is_ours(pid, directory)) else {
        return Ok(());
    };
    if ends_after(target, Signal::TERM, directory) {
        return Ok(());
    }
    eprintln!("{name}: process {pid} doesn't end within {STOP_TIMEOUT:?}; killing it");
    if !ends_after(target, Signal::KILL, directory) {
        bail!("can't stop {name}, process {pid}; its log is {}", Kind::log(directory).display());
    }
    Ok(())
}

fn ends_after(target: Pid, signal: Signal, directory: &Path) -> bool {
    // The process may end before the signal is sent; the loop notices that.
    let _ = kill_process(target, signal);
    let deadline = Instant::now() + STOP_TIMEOUT;
    while is_ours(target.as_raw_nonzero().get(), directory) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(PROBE_INTERVAL);
    }
    true
}

/// The command line is empty for a process that has ended, until its parent waits
/// for it.
fn command_line(pid: i32) -> Option<String> {
    if let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) {
        return Some(String::from_utf8_lossy(&line).into_owned());
    }
    // Only Linux has /proc.
    if Path::new("/proc/self").exists() {
        return None;
    }
    command::probe(Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    format!("the end of {}:\n{end}", log.display())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_a_process_that_names_the_directory_is_stopped() {
        let mut child = Command::new("sh")
            .args(["-c", "echo; read never", "/some/services/redis"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The command line is there only once the shell runs.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let id = pid(&child);
        assert!(is_ours(id, Path::new("/some/services/redis")));
        stop(id, Path::new("/another"), "redis").unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the process of another directory was stopped");
        stop(id, Path::new("/some/services/redis"), "redis").unwrap();
        assert!(child.wait().unwrap().code().is_none());
    }

    #[test]
    fn a_server_that_ends_is_reported_at_once_with_its_log() {
        let directory = std::env::temp_dir().join(format!("yadtq-xtask-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut child = spawn(Command::new("sh").args(["-c", "echo cannot bind; exit 3"]), &directory).unwrap();
        let error = wait_until_ready(Kind::Redis, "redis://127.0.0.1:1", Some((&mut child, &directory))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("cannot bind"), "{text}");
        fs::remove_dir_all(&directory).unwrap();
    }
}

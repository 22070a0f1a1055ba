//! Runs other programs: with live output, with errors that name the command, and
//! so that their whole process group ends when xtask is interrupted.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{iter, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;

/// Time between two checks whether a program has ended.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time that an interrupted program has to clean up. Then it is killed.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the next line of output of a program that has ended.
const REMAINING_OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a command to its end. Its output goes to stderr, because stdout is for
/// the output that the user asked xtask for.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    command.stdout(std::io::stderr());
    let status = wait(spawn(command)?)?;
    require_success(command, status)
}

/// Runs a command whose output matters only if it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run `{}`", command.get_program().display()))?;
    let text = [output.stdout, output.stderr].concat();
    require_success(command, output.status).with_context(|| String::from_utf8_lossy(&text).trim().to_owned())
}

/// Runs a command to its end and copies its stdout as it comes. After the end,
/// calls `line` with each line of it.
pub(crate) fn run_watched(command: &mut Command, line: impl FnMut(String)) -> Result<ExitStatus> {
    let mut child = spawn(command.stdout(Stdio::piped()))?;
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || copy_lines(output, &sender));
    }
    let status = wait(child)?;
    // A process that the program left behind may never close the pipe. The output
    // of the program itself is in the pipe by now.
    iter::from_fn(|| lines.recv_timeout(REMAINING_OUTPUT_TIMEOUT).ok()).for_each(line);
    Ok(status)
}

/// What a command prints, stdout and then stderr. `None` if it fails.
pub(crate) fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    output.status.success().then(|| text(&output.stdout) + &text(&output.stderr))
}

/// The path of `program`, if it is on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}

/// Starts the program in a process group of its own, so that an interruption also
/// ends the processes that the program has started.
fn spawn(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("can't run `{}`", command.get_program().display()))
}

fn wait(mut child: Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let Err(interrupted) = interrupt::check() {
            end_group(&mut child)?;
            return Err(interrupted.into());
        }
        thread::sleep(EXIT_POLL_INTERVAL);
    }
}

fn end_group(child: &mut Child) -> Result<()> {
    // This fails if the group has already ended, which is the goal.
    let _ = kill_process_group(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(EXIT_POLL_INTERVAL);
    }
    // Even if the leader has ended: its children may have ignored the first signal.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    child.wait()?;
    Ok(())
}

fn require_success(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    bail!("`{line}` failed ({status})");
}

/// Copies bytes at once, because a test's name appears before its outcome does,
/// and sends them in lines too. Ends with the input, or when nobody reads the
/// output of xtask: then the program's next write fails, as it would without xtask.
fn copy_lines(mut from: impl Read, lines: &mpsc::Sender<String>) -> Result<()> {
    let mut to = std::io::stdout();
    let mut buffer = [0; 8192];
    let mut pending = Vec::new();
    loop {
        let count = from.read(&mut buffer)?;
        to.write_all(&buffer[..count])?;
        to.flush()?;
        pending.extend_from_slice(&buffer[..count]);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let rest = pending.split_off(end + 1);
            pending.truncate(end);
            lines.send(String::from_utf8_lossy(&std::mem::replace(&mut pending, rest)).into_owned())?;
        }
        if count == 0 {
            return Ok(lines.send(String::from_utf8_lossy(&pending).into_owned())?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("`false` failed"), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "can't run `no-such-program`");
    }

    #[test]
    fn lines_are_seen_whole_and_the_last_one_without_a_newline_too() {
        let mut lines = Vec::new();
        let mut command = Command::new("printf");
        command.arg("one\\ntwo");
        assert!(run_watched(&mut command, |line| lines.push(line)).unwrap().success());
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_process_left_behind_does_not_delay_the_end() {
        let start = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo done; sleep 30 &"]);
        let mut lines = Vec::new();
        run_watched(&mut command, |line| lines.push(line)).unwrap();
        assert_eq!(lines, ["done"]);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }
}

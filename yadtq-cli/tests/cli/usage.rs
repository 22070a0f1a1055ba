//! Help, completions, colours and pipes: what needs no server.

use std::process::Stdio;

use tokio::{io::AsyncReadExt as _, process::Command};

use crate::support::{Ran, run, yadtq};

const COMMANDS: [&str; 17] = [
    "submit",
    "status",
    "result",
    "revoke",
    "workers",
    "queues",
    "pause",
    "resume",
    "purge",
    "disable",
    "enable",
    "controls",
    "dlq",
    "scheduled",
    "periodic",
    "ping",
    "completions",
];

async fn of(args: &[&str]) -> Ran {
    run(yadtq().args(args), "").await
}

#[tokio::test]
async fn help_lists_the_commands_and_the_exit_codes() {
    let help = of(&["--help"]).await.exits(0).quietly().stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert_eq!(
        list,
        "  submit       Send a task, and print its id
  status       Show where a task stands
  result       Print what a task returned, as JSON
  revoke       End a task: one that waits will not run, one that runs is asked to end
  workers      List the workers that are alive
  queues       List the queues, with how much waits in each
  pause        Pause a queue: workers take nothing more from it until it is resumed
  resume       Let workers take tasks from a paused queue again
  purge        End all tasks that wait in a queue, and tell whoever awaits them
  disable      Run no task of a name any more, in any queue, until it is enabled
  enable       Let tasks of a disabled name run again
  controls     List what holds: paused queues, disabled tasks, purges
  dlq          List, replay and purge dead letters: what failed for good, or could not be run
  scheduled    List the tasks that wait for their time or for a retry, and run or end them
  periodic     List the periodic tasks that workers declare, with their next and last runs
  ping         Ask Kafka and Redis who they are, and look for settings that endanger tasks
  completions  Print a completion script for a shell
  help         Print this message or the help of the given subcommand(s)"
    );
    let codes: Vec<_> = help.split("Exit codes:\n").nth(1).unwrap().lines().map(|line| &line[..5]).collect();
    assert_eq!(codes, ["  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  5  ", "  6  "]);
}

#[tokio::test]
async fn help_of_each_command_has_examples_and_no_secrets() {
    for command in COMMANDS {
        let mut run_help = yadtq();
        run_help.env("YADTQ_REDIS", "redis://:secret@localhost").args([command, "--help"]);
        let help = run(&mut run_help, "").await.exits(0).quietly().stdout;
        assert!(help.contains(&format!("Examples:\n  yadtq {command}")), "{help}");
        assert!(!help.contains("secret"), "{help}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for args in [&[][..], &["frobnicate"], &["status"], &["status", ""], &["ping", "--nope"]] {
        of(args).await.exits(2).prints("");
    }
    let unit = of(&["result", "x", "--wait", "--timeout", "3 parsecs"]).await.exits(2);
    unit.mentions("unknown time unit");
    of(&["--version"]).await.exits(0).prints(concat!("yadtq ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = of(&["completions", shell]).await.exits(0).quietly().stdout;
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}: {script}");
    }
    of(&["completions", "tcsh"]).await.exits(2).mentions("possible values: bash");
}

#[tokio::test]
async fn colours_only_where_they_belong() {
    let coloured = |name: &'static str, value: &'static str| async move {
        let mut command = yadtq();
        command.env(name, value).args(["ping", "--kafka", "embedded"]);
        run(&mut command, "").await.exits(2).stderr.contains('\u{1b}')
    };
    assert!(coloured("CLICOLOR_FORCE", "1").await);
    assert!(!coloured("NO_COLOR", "1").await);
    assert!(!coloured("TERM", "xterm-256color").await, "stderr is no terminal here");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = yadtq();
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The script is larger than a pipe holds, so the command is still writing now.
    child.stdout.take().unwrap().read_u8().await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = yadtq();
    command.args(["completions", "bash"]).stdout(full).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(6));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: the answer cannot be written: No space left"), "{stderr}");
}

#[cfg(unix)]
#[tokio::test]
async fn closed_streams_do_not_make_it_panic() {
    for redirections in [">&-", "2>&-", ">&- 2>&-", "<&-"] {
        for command in ["completions bash", "ping --kafka embedded", "submit add --args-json -"] {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("\"$0\" {command} {redirections}")).arg(env!("CARGO_BIN_EXE_yadtq"));
            let ran = run(&mut shell, "").await;
            assert!(ran.code < 101, "{command} {redirections}: {ran:?}");
        }
    }
}
